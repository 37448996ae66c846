"""The page of a labelled output, in a real browser with the network off, and the numbers that it says."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.report_page import CHROMIUM, Labelled, made_up, opened, turn_labels, write_output
from pipelines import report
from pipelines.errors import UserError
from pipelines.labelled import Labelled as Output
from pipelines.report_page.examples import TEXT_LIMIT, choose, what_came_next
from pipelines.report_page.numbers import WORST_INTENTS, count
from pipelines.report_page.why import NAMES
from schemas.labels import DialogueLabels, GoalLabels, Label, Signal
from schemas.log import AsrHypothesis, Dialogue, FailurePoint, NluHypothesis, Response, Turn
from schemas.rejects import Reject, RejectReason, Stage

CORRECT, ASR, NLU, RESULT = FailurePoint.CORRECT, FailurePoint.ASR, FailurePoint.NLU, FailurePoint.RESULT

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser_test = pytest.mark.skipif(_CHROMIUM is None, reason="there is no Chromium on this machine")

MARKUP = '<script>window.hacked = 1</script><img src="https://example.org/x.png" onerror="window.hacked = 2">&amp;'
TURNED = "\u202eemit ruoy si tahw\u202c שלום"
LONG = "very " * 200_000


def dialogue(
    name: str,
    *turns: tuple[str, FailurePoint, str | None],
    success: bool = True,
    device: str | None = "phone",
    started_at: dt.datetime | None = dt.datetime(2026, 3, 1, 8, tzinfo=dt.UTC),
    **labels: Any,
) -> Labelled:
    """A dialogue of one goal. A turn: what was said, its failure point and its intent; `labels` are the last turn's."""
    log = Dialogue(
        dialogue_id=name,
        device=device,
        started_at=started_at,
        turns=[
            Turn(
                text=text,
                asr=[AsrHypothesis(text=text, score=0.6), AsrHypothesis(text=f"{text[:100]} or so", score=0.3)],
                nlu=[NluHypothesis(domain="home", intent=intent, score=0.9)],
                response=Response(text=f"This is about {text[:100]}.", action="answer"),
            )
            for text, _, intent in turns
        ],
    )
    points = [point for _, point, _ in turns]
    rows = [
        turn_labels(name, index, point, intent=intent, **(labels if index == len(turns) - 1 else {}))
        for index, (_, point, intent) in enumerate(turns)
    ]
    defects = sum(point is not CORRECT for point in points)
    goal = GoalLabels(name, f"{name}/0", list(range(len(turns))), turns[0][2], success, 0.9, CORRECT, None)
    return Labelled(log, DialogueLabels(name, len(turns), 1, defects, success, 0.9, rows, [goal]))


DIALOGUES = [
    dialogue("recovered", ("play jazz", CORRECT, "play"), ("thank you", CORRECT, "bye")),
    dialogue(
        "repeated",
        ("lay chess", ASR, "play"),
        ("play jazz", CORRECT, "play"),
        success=False,
        rephrase_of=0,
        signals=[Signal.REPHRASE, Signal.CORRECTION],
    ),
    dialogue("unsure", ("dim it", NLU, "light"), confidence=0.4, abstained=[Label.FAILURE_POINT]),
    dialogue("hostile", (MARKUP, RESULT, MARKUP), (TURNED, ASR, "play"), (LONG, ASR, "play")),
    *(
        dialogue(f"day-{day}", ("lights on", ASR if day % 3 else CORRECT, "light"), started_at=start)
        for day in range(12)
        for start in [dt.datetime(2026, 3, 1 + day, 9, tzinfo=dt.UTC)]
    ),
]
REJECTS = [Reject("logs.jsonl", 7, Stage.PARSE, RejectReason.INVALID_JSON, f"bad {MARKUP}", "{")]
FAILED = 13
TURNS = 20


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled output, some of whose texts are meant to break a page."""
    return write_output(tmp_path_factory.mktemp("report"), DIALOGUES, REJECTS)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where hardly anything fails."""
    dialogues = [dialogue(f"b{number}", ("lights on", CORRECT, "light")) for number in range(60)]
    return write_output(tmp_path_factory.mktemp("baseline"), dialogues)


Make = Callable[..., Path]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An MLflow store for all pages: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def make(store: str) -> Make:
    """Makes the page of an output; without explanations, as the labels are made up."""

    def run(output: Path, *options: str) -> Path:
        return Path(report.run(["--labels", str(output), "--explain", "0", "--mlflow-tracking-uri", store, *options]))

    return run


@pytest.fixture(scope="module")
def page_file(output: Path, make: Make) -> Path:
    return make(output, "--title", f"Week 9 {MARKUP}", "--note", "Synthetic <logs>")


@pytest.fixture(scope="module")
def compared_page_file(output: Path, baseline: Path, make: Make) -> Path:
    return make(output, "--baseline", str(baseline), "--output", str(output / "compared.html"))


class Opened(NamedTuple):
    """A page, with what went wrong in it so far: what it logged and what it asked the network for."""

    page: Any
    trouble: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=_CHROMIUM, args=CHROMIUM, timeout=120_000)


@pytest.fixture
def opened_page(browser: Any, page_file: Path) -> Iterator[Opened]:
    yield from _open(browser, page_file)


def _open(browser: Any, file: Path, **context_options: Any) -> Iterator[Opened]:
    trouble: list[str] = []
    context = browser.new_context(offline=True, **context_options)
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: None if request.url == file.as_uri() else trouble.append(request.url))
    page.goto(file.as_uri())
    yield Opened(page, trouble)
    context.close()


def shown(page: Any) -> list[str]:
    """The failure points of the dialogues in the list."""
    return list(page.locator("#list .point").all_inner_texts())


# In the browser


@browser_test
def test_the_page_asks_nothing_of_the_network_and_logs_nothing(opened_page: Opened) -> None:
    opened_page.page.get_by_role("button", name="Show dialogues that failed at asr").click()
    assert opened_page.trouble == []


@browser_test
def test_what_users_said_is_shown_and_never_run(opened_page: Opened) -> None:
    page = opened_page.page
    page.get_by_role("searchbox").fill("window.hacked")
    assert page.locator("#list .said").all_inner_texts() == [MARKUP]
    page.locator("#list button").click()
    assert page.locator("#detail dd.user bdi").all_inner_texts()[0] == MARKUP
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, bdi script").count() == 0
    assert "Week 9 <script>" in page.locator("h1").inner_text()


@browser_test
def test_text_from_right_to_left_turns_nothing_else(opened_page: Opened) -> None:
    opened_page.page.get_by_role("searchbox").fill(TURNED)
    opened_page.page.locator("#list button").click()
    isolated = opened_page.page.locator("#detail dd.user bdi", has_text=TURNED)
    assert isolated.evaluate("element => getComputedStyle(element).unicodeBidi") == "isolate"


@browser_test
def test_a_huge_text_is_cut_and_says_so(opened_page: Opened) -> None:
    opened_page.page.get_by_role("searchbox").fill("very very")
    opened_page.page.locator("#list button").click()
    said = opened_page.page.locator("#detail dd.user").last.inner_text()
    assert len(said) < TEXT_LIMIT + 50
    assert f"cut: {len(LONG):,} characters" in said


@browser_test
def test_the_filters_narrow_the_list(opened_page: Opened) -> None:
    from playwright.sync_api import expect

    page = opened_page.page
    points, status = page.locator("#list .point"), page.get_by_role("status")
    expect(status).to_have_text("11 of 11 dialogues")
    page.get_by_label("nlu", exact=True).check()
    expect(points).to_have_text(["nlu"])
    page.get_by_label("only where the model is sure").check()
    expect(status).to_have_text("0 of 11 dialogues")
    page.get_by_role("button", name="Clear").click()
    expect(status).to_have_text("11 of 11 dialogues")
    page.get_by_role("combobox", name="Intent").select_option("play")
    expect(points).to_have_text(["asr", "asr"])
    page.get_by_role("searchbox").fill("lay chess")
    expect(page.locator("#list .said")).to_have_text(["lay chess"])


@browser_test
def test_a_row_of_the_worst_intents_leads_to_its_dialogues(opened_page: Opened) -> None:
    page = opened_page.page
    page.get_by_role("button", name="Show dialogues of play").click()
    assert page.get_by_role("combobox", name="Intent").input_value() == "play"
    assert set(shown(page)) == {"asr"}


@browser_test
def test_a_dialogue_shows_its_hypotheses_its_labels_and_what_the_user_did_next(opened_page: Opened) -> None:
    page = opened_page.page
    page.get_by_role("searchbox").fill("lay chess")
    page.locator("#list button").click()
    failed = page.locator("#detail .turn.failed")
    assert "In turn 1 the user asked for it again in other words." in failed.inner_text()
    assert "In turn 1 the user used words of correction." in failed.inner_text()
    assert "lay chess or so" in failed.get_by_role("table", name="Recognised, best first").inner_text()
    assert "0.90" in failed.get_by_role("table", name="Failure point: probabilities").inner_text()


@browser_test
def test_the_page_can_be_used_by_keyboard_alone(opened_page: Opened) -> None:
    page = opened_page.page
    page.locator("#list button").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    second = page.locator("#list button").nth(1)
    assert second.get_attribute("aria-current") == "true"
    assert page.evaluate("document.activeElement.tagName") == "H3"
    page.locator(".plot .wide svg").first.focus()
    page.keyboard.press("ArrowRight")
    assert "1 March 2026" in page.locator("#tip").inner_text()


@browser_test
def test_a_link_opens_its_dialogue(browser: Any, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(f"{page_file.as_uri()}#dialogue=unsure")
    assert page.locator("#detail h3").inner_text() == "unsure"
    page.close()


@browser_test
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_has_no_accessibility_violations(
    browser: Any, compared_page_file: Path, scheme: str, width: int
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for opened_page in _open(
        browser, compared_page_file, color_scheme=scheme, viewport={"width": width, "height": 800}
    ):
        results = Axe().run(opened_page.page)
        assert results.violations_count == 0, results.generate_report()
        assert opened_page.page.evaluate("document.documentElement.scrollWidth") <= width


@browser_test
@pytest.mark.slow
def test_the_page_of_100_000_turns_is_small_and_opens_at_once(browser: Any, tmp_path: Path, make: Make) -> None:
    page = make(write_output(tmp_path, made_up(100_000)))
    assert page.stat().st_size < 15e6
    # Processor time, so that what else the machine does is not counted.
    assert opened(page, browser).busy < 3.0


# What it says


def test_the_numbers_are_those_of_the_tables(output: Path, page_file: Path) -> None:
    with Output.open(str(output)) as labelled:
        numbers = count(labelled.connection)
        worst = labelled.connection.execute(WORST_INTENTS).fetchall()
    assert (numbers.failed.part, numbers.failed.whole) == (FAILED, TURNS)
    rows = numbers.segments["intent"]
    assert [(row.name, row.failed.whole, row.failed.part, row.sure) for row in rows] == worst
    assert f"{FAILED} of {TURNS} turns failed, 65.0\u00a0%" in page_file.read_text(encoding="utf-8")


def test_turns_of_one_dialogue_count_for_less_than_turns_of_many(tmp_path: Path) -> None:
    apart = [dialogue(f"d{n}", ("hello", ASR if n % 2 else CORRECT, None)) for n in range(80)]
    together = [dialogue(f"d{n}", *[("hello", ASR if n % 2 else CORRECT, None)] * 20) for n in range(4)]
    widths = []
    for name, dialogues in {"apart": apart, "together": together}.items():
        with Output.open(str(write_output(tmp_path / name, dialogues))) as labelled:
            failed = count(labelled.connection).failed
        assert failed.value == 0.5
        widths.append(failed.high - failed.low)
    assert widths[1] > 2 * widths[0]


def test_what_never_fails_has_an_interval_all_the_same(baseline: Path) -> None:
    with Output.open(str(baseline)) as labelled:
        failed = count(labelled.connection).failed
    assert failed.value == failed.low == 0
    assert 0.02 < failed.high < 0.1


def test_rare_values_are_added_up(tmp_path: Path) -> None:
    many = [dialogue(f"d{n}", ("hello", ASR, None), device=f"device {n:02}") for n in range(20)]
    with Output.open(str(write_output(tmp_path, many))) as labelled:
        *_, rest = count(labelled.connection).segments["device"]
    assert (rest.rest, rest.failed.part) == (8, 8)


def test_every_kind_of_failure_has_an_example(tmp_path: Path) -> None:
    common = [dialogue(f"c{n}", ("play jazz", ASR, "play")) for n in range(200)]
    rare = [dialogue("rare", ("dim it", RESULT, "light"), confidence=0.3)]
    with Output.open(str(write_output(tmp_path, common + rare))) as labelled:
        chosen = choose(labelled.connection, 20)
    assert len(chosen) == 20
    assert "rare" in {each.dialogue_id for each in chosen}


@pytest.mark.parametrize(
    ("own", "following", "said"),
    [
        ([Signal.BARGE_IN], [], ["The user spoke over the response."]),
        ([], [Signal.REPEAT], ["In turn 1 the user said (nearly) the same again."]),
        ([], [], ["The user went on without a sign of trouble."]),
    ],
)
def test_what_the_user_did_next_is_told(own: list[Signal], following: list[Signal], said: list[str]) -> None:
    rows = [
        {"turn_index": index, "rephrase_of": None, "feedback_signals": signals}
        for index, signals in enumerate([own, following])
    ]
    assert what_came_next(rows, 0) == said


def test_a_page_without_times_says_so(tmp_path: Path, make: Make) -> None:
    page = make(write_output(tmp_path, [dialogue("d", ("hello", ASR, None), started_at=None)]))
    assert "The logs do not say when their turns were" in page.read_text(encoding="utf-8")


def test_a_page_of_labels_whose_log_is_gone_says_so(tmp_path: Path, make: Make) -> None:
    output = write_output(tmp_path, [dialogue("d", ("hello", ASR, "greet"))])
    (tmp_path / "logs.jsonl").unlink()
    page = make(output).read_text(encoding="utf-8")
    assert "logs.jsonl cannot be found" in page
    assert "1 of 1 turns failed" in page


def test_nothing_labelled_still_makes_a_page(tmp_path: Path, make: Make) -> None:
    page = make(write_output(tmp_path, [], REJECTS)).read_text(encoding="utf-8")
    assert "No dialogue was labelled." in page
    assert "invalid_json" in page


def test_a_change_is_told_from_noise(output: Path, compared_page_file: Path, make: Make, tmp_path: Path) -> None:
    same = make(output, "--baseline", str(output), "--output", str(tmp_path / "page.html"))
    assert "Against the baseline that is <b>worse</b>" in compared_page_file.read_text(encoding="utf-8")
    assert "Against the baseline that is <b>no change beyond noise</b>" in same.read_text(encoding="utf-8")


def test_what_moved_the_model_is_told_of_the_run_s_own_model(labelled_output: Any, store: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    report.run(["--labels", str(labelled_output.labels), "--output", str(page), "--mlflow-tracking-uri", store])
    text = page.read_text(encoding="utf-8")
    assert "What moved the model is not told" not in text
    assert "the page says what moved the model" in text


def test_every_kind_of_evidence_has_a_name_on_the_page() -> None:
    from labelers.explanation import Evidence

    assert set(NAMES) == set(Evidence) - {Evidence.TURN}


def test_another_model_explains_nothing(output: Path, store: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    report.run(["--labels", str(output), "--output", str(page), "--mlflow-tracking-uri", store])
    assert "What moved the model is not told of run made-up: the model builtin is now" in page.read_text(
        encoding="utf-8"
    )


def test_the_page_and_its_numbers_are_in_mlflow(output: Path, store: str, make: Make, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    make(output, "--output", str(tmp_path / "page.html"), "--experiment", "pages")
    client = MlflowClient(store)
    [run] = client.search_runs([client.get_experiment_by_name("pages").experiment_id])
    assert run.data.metrics["defect_rate"] == pytest.approx(FAILED / TURNS)
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["page.html"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "nowhere"], "There is no folder"),
        (["--labels", "gs://bucket/out"], "name a local file"),
        (["--labels", ".", "--output", "."], "is a folder"),
        (["--labels", ".", "--dialogues", "-1"], "not a whole number of at least 0"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        report.run(options)
