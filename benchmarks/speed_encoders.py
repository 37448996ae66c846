"""One way to make vectors of texts, in a process of its own: what `benchmarks/speed.py` compares.

    python -m benchmarks.speed_encoders write FOLDER
    python -m benchmarks.speed_encoders NAME FOLDER

FOLDER has lists of texts, by name, in texts.json; `write` puts a RoBERTa-base with random weights and a tokenizer
beside it, which all use, with as many threads as OMP_NUM_THREADS says. The process says in a line of JSON that it is
ready, then reads the name of a list a line, encodes that list, and answers with a line of JSON. A text's vector is the
mean over the states of its tokens, whoever makes it; those of the last time that a list was encoded are left in FOLDER
as NAME.LIST.npy.

Dimensions: S texts, E token width, M tokens of a pack.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TextIO

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import torch
from apache_beam.ml.inference.base import KeyedModelHandler, PredictionResult, RunInference
from apache_beam.ml.inference.pytorch_inference import PytorchModelHandlerTensor
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult
from tokenizers.processors import RobertaProcessing
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel, pipeline

from encoders.kept import KeptVectors
from encoders.packing import TOKEN_BUDGET
from encoders.turn import TurnEncoderConfig
from labelers.model import CACHED_PAIRS, GROUP_TURNS, TOKENIZER, Model, ModelConfig
from pipelines.options import LOCAL_RUNNER
from pipelines.tracking import resolve_model
from schemas.ontology import Ontology

BATCH = 32
"""Texts of a batch, for those who batch by the number of texts."""
TEXTS, STATE = "texts.json", "state.pt"

Vectors = npt.NDArray[np.float32]


def write(folder: Path, config: RobertaConfig, tokenizer_file: Path) -> None:
    """Leaves in `folder` a RoBERTa of these sizes with random weights, in the forms that each way reads."""
    torch.manual_seed(0)
    model = RobertaModel(config, add_pooling_layer=False)
    model.save_pretrained(folder)
    torch.save(model.state_dict(), folder / STATE)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file),
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=config.max_position_embeddings - 2,
        model_input_names=["input_ids", "attention_mask"],
    )
    begin, end = ((token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>"))
    tokenizer.backend_tokenizer.post_processor = RobertaProcessing(end, begin, False, False)
    tokenizer.save_pretrained(folder)


class Contender(ABC):
    """A way to make vectors."""

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Loads the model."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Any:
        """What is timed."""

    def vectors(self, encoded: Any, texts: Sequence[str]) -> Vectors:
        """(S, E), from what `encode` gave."""
        return np.asarray(encoded, dtype=np.float32)

    def loading(self) -> float:
        """Seconds of the last `encode` that went into loading the model."""
        return 0.0

    def operations(self, texts: Sequence[str]) -> float | None:
        """Floating point operations that the texts take; None where nobody compares them."""
        return None


class TransformersPipeline(Contender):
    """The pipeline `feature-extraction` of transformers, which gives the states of all tokens; here as tensors."""

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        model = RobertaModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.pipeline = pipeline("feature-extraction", model=model, tokenizer=self.tokenizer, device="cpu")

    def encode(self, texts: Sequence[str]) -> list[Tensor]:
        return self.pipeline(list(texts), batch_size=BATCH, return_tensors=True)  # type: ignore[no-any-return]

    def vectors(self, encoded: list[Tensor], texts: Sequence[str]) -> Vectors:
        # The padding of its batch comes with each text.
        lengths = [len(ids) for ids in self.tokenizer(list(texts)).input_ids]
        return np.stack([states[0, :size].mean(0).numpy() for states, size in zip(encoded, lengths, strict=True)])


class BeamRunInference(Contender):
    """Beam's RunInference with its stock handler for tensors; each batch is padded to its longest text."""

    name = "beam"

    def __init__(self, folder: Path) -> None:
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.handler = PytorchModelHandlerTensor(
            state_dict_path=str(folder / STATE),
            model_class=RobertaModel,
            model_params={"config": RobertaConfig.from_pretrained(folder), "add_pooling_layer": False},
            inference_fn=_padded_batch,
            min_batch_size=BATCH,
            max_batch_size=BATCH,
        )
        self.output = str(folder / "beam.npz")
        self._loading = 0.0

    def encode(self, texts: Sequence[str]) -> str:
        ids = self.tokenizer(list(texts)).input_ids
        made = beam.Pipeline(LOCAL_RUNNER, options=PipelineOptions([]))
        numbered = [(number, torch.tensor(each)) for number, each in enumerate(ids)]
        _ = (
            made
            | "Texts" >> beam.Create(numbered, reshuffle=False)
            | "Encode" >> RunInference(KeyedModelHandler(self.handler))
            | "Gather" >> beam.combiners.ToList()
            | "Save" >> beam.Map(_save, self.output)
        )
        result = made.run()
        result.wait_until_finish()
        self._loading = loading_seconds(result)
        return self.output

    def vectors(self, encoded: str, texts: Sequence[str]) -> Vectors:
        with np.load(encoded) as saved:
            return saved["vectors"][np.argsort(saved["numbers"])]  # type: ignore[no-any-return]

    def loading(self) -> float:
        return self._loading


def loading_seconds(result: PipelineResult) -> float:
    """What RunInference spent on loading its model."""
    loaded = beam.metrics.MetricsFilter().with_name("load_model_latency_milli_secs")
    return sum(each.result.sum for each in result.metrics().query(loaded)["distributions"]) / 1_000  # type: ignore[no-any-return]


def _padded_batch(
    batch: Sequence[Tensor],
    model: RobertaModel,
    device: str,
    inference_args: Mapping[str, Any] | None = None,
    model_id: str | None = None,
) -> list[PredictionResult]:
    """The hook of Beam's handler for what is done with a batch; its own stacks tensors, which must be of one length."""
    with torch.inference_mode():
        ids = pad_sequence(list(batch), batch_first=True, padding_value=model.config.pad_token_id)
        mask = pad_sequence([torch.ones_like(each) for each in batch], batch_first=True)
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        means = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    return [PredictionResult(*each, model_id) for each in zip(batch, means, strict=True)]


def _save(results: list[tuple[int, PredictionResult]], path: str) -> None:
    vectors = torch.stack([result.inference for _, result in results]).numpy()
    np.savez(path, numbers=[number for number, _ in results], vectors=vectors)


class SentenceTransformers(Contender):
    """`encode` of sentence-transformers, which sorts the texts by length."""

    name = "sentence-transformers"

    def __init__(self, folder: Path) -> None:
        # Of the extra `bench`.
        from sentence_transformers import SentenceTransformer

        # Of a folder without settings of its own it takes the mean over the tokens.
        self.model = SentenceTransformer(str(folder), device="cpu")

    def encode(self, texts: Sequence[str]) -> Vectors:
        return self.model.encode(list(texts), batch_size=BATCH, show_progress_bar=False)  # type: ignore[no-any-return]


class Faultline(Contender):
    """Faultline's words encoder, and what `labelers.model` does with texts: a group's repeats once, some are kept."""

    name = "faultline"

    def __init__(self, folder: Path) -> None:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder).backend_tokenizer
        config = TurnEncoderConfig(RobertaConfig.from_pretrained(folder).to_dict())
        self.model = Model(ModelConfig(config), tokenizer, Ontology())
        words = RobertaModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
        self.model.turn_encoder.words.load_state_dict(words.state_dict())
        self.model.eval()
        self.model.prepare()

    def encode(self, texts: Sequence[str]) -> Tensor:
        kept: KeptVectors[str] = KeptVectors(CACHED_PAIRS)
        with torch.inference_mode():
            groups = (texts[start : start + GROUP_TURNS] for start in range(0, len(texts), GROUP_TURNS))
            return torch.cat([kept.look_up(group, self.model.encode_texts) for group in groups])

    def operations(self, texts: Sequence[str]) -> float:
        tokens = sum(len(turn.ids) for turn in self.model.tokenizer.names(list(dict.fromkeys(texts))))
        return _operations(tokens, self.model.turn_encoder.words.config)


class MatrixProduct(Contender):
    """The most that the machine gives: this model's matrix products of full packs alone, in its arithmetic."""

    name = "matrix product"

    def __init__(self, folder: Path) -> None:
        model = Faultline(folder).model
        self.tokenizer, self.config = model.tokenizer, model.turn_encoder.words.config
        width, wide, dtype = self.config.hidden_size, self.config.intermediate_size, model.turn_encoder.words.dtype
        self.inputs = {size: torch.randn(TOKEN_BUDGET, size, dtype=dtype) for size in (width, wide)}
        shapes = [(width, width)] * 4 + [(wide, width), (width, wide)]
        self.weights = [
            torch.randn(shape, dtype=dtype) for _ in range(self.config.num_hidden_layers) for shape in shapes
        ]

    def encode(self, texts: Sequence[str]) -> None:
        with torch.inference_mode():
            for _ in range(self._packs(texts)):
                for weight in self.weights:
                    functional.linear(self.inputs[weight.shape[1]], weight)

    def operations(self, texts: Sequence[str]) -> float:
        return _operations(self._packs(texts) * TOKEN_BUDGET, self.config)

    def _packs(self, texts: Sequence[str]) -> int:
        return math.ceil(sum(len(turn.ids) for turn in self.tokenizer.names(texts)) / TOKEN_BUDGET)


def _operations(tokens: int, config: RobertaConfig) -> float:
    """Floating point operations of the linear layers, which are all but a hundredth of them in texts this short."""
    weights = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    return float(2 * weights * config.num_hidden_layers * tokens)


CONTENDERS: dict[str, type[Contender]] = {
    each.name: each for each in (TransformersPipeline, BeamRunInference, SentenceTransformers, Faultline, MatrixProduct)
}


def main(argv: Sequence[str], asked: TextIO, answers: TextIO) -> None:
    """Answers until nothing more is asked."""
    name, folder = argv[0], Path(argv[1])
    if name == "write":
        write(folder, RobertaConfig(), resolve_model("builtin", None) / TOKENIZER)
        return
    lists = json.loads((folder / TEXTS).read_text(encoding="utf-8"))
    contender = CONTENDERS[name](folder)
    # The kernels of the usual shapes are prepared, as they are in a long run.
    contender.encode(next(iter(lists.values()))[: 4 * BATCH])
    answers.write("{}\n")
    for line in asked:
        texts = lists[line.strip()]
        started = time.perf_counter()
        encoded = contender.encode(texts)
        seconds = time.perf_counter() - started - contender.loading()
        if encoded is not None:
            np.save(folder / f"{name}.{line.strip()}.npy", contender.vectors(encoded, texts))
        answers.write(json.dumps({"seconds": seconds, "operations": contender.operations(texts)}) + "\n")


if __name__ == "__main__":
    # What libraries print is not an answer.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1) as answering:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        main(sys.argv[1:], sys.stdin, answering)
