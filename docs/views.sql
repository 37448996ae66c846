-- The tables of `faultline query` in BigQuery: labels on Cloud Storage, with what the logs say beside them.
--
-- Put in your own names: gs://BUCKET/out (the --output of faultline label), gs://BUCKET/logs (the logs in the canonical
-- form, as Parquet) and labels (the BigQuery dataset). The columns are those of the README's section "Query it".

CREATE OR REPLACE EXTERNAL TABLE labels.turns_files
OPTIONS (format = 'PARQUET', enable_list_inference = TRUE, uris = ['gs://BUCKET/out/turns/*.parquet']);

CREATE OR REPLACE EXTERNAL TABLE labels.goals_files
OPTIONS (format = 'PARQUET', enable_list_inference = TRUE, uris = ['gs://BUCKET/out/goals/*.parquet']);

CREATE OR REPLACE EXTERNAL TABLE labels.dialogues_files
OPTIONS (format = 'PARQUET', enable_list_inference = TRUE, uris = ['gs://BUCKET/out/dialogues/*.parquet']);

CREATE OR REPLACE EXTERNAL TABLE labels.rejected_files
OPTIONS (format = 'PARQUET', enable_list_inference = TRUE, uris = ['gs://BUCKET/out/rejected/*.parquet']);

CREATE OR REPLACE EXTERNAL TABLE labels.logs_files
OPTIONS (format = 'PARQUET', enable_list_inference = TRUE, uris = ['gs://BUCKET/logs/*.parquet']);

-- One SELECT an input, joined by UNION ALL. DATASET is the input's name in the output: "dataset" in its runs/*.json.
-- Logs in another form: select these columns from your own tables. Ids must be unique in an input: of dialogues with
-- one id Faultline labels the first, while here either is shown.
CREATE OR REPLACE VIEW labels.logs AS
SELECT dataset, dialogue_id, started_at, locale, device, user_id, turns
FROM (
  SELECT
    'DATASET' AS dataset, dialogue_id, started_at, locale, device, user_id, turns,
    ROW_NUMBER() OVER (PARTITION BY dialogue_id ORDER BY started_at) AS place
  FROM labels.logs_files
) AS log
WHERE place = 1;

-- A row a turn of the logs.
CREATE OR REPLACE VIEW labels.said AS
SELECT
  log.dataset,
  log.dialogue_id,
  turn_index,
  COALESCE(turn.text, turn.asr[SAFE_OFFSET(0)].text) AS text,
  turn.response.text AS response,
  turn.response.action AS action,
  turn.response.status AS status,
  turn.nlu[SAFE_OFFSET(0)].domain AS domain,
  turn.asr,
  turn.nlu,
  turn.entities,
  turn.wake_score,
  turn.barge_in,
  COALESCE(turn.started_at, log.started_at, log.turns[SAFE_OFFSET(0)].started_at) AS started_at,
  COALESCE(log.started_at, log.turns[SAFE_OFFSET(0)].started_at) AS dialogue_started_at,
  log.locale,
  log.device,
  log.user_id
FROM (
  SELECT log.*, turn_index, log.turns[SAFE_ORDINAL(turn_index + 1)] AS turn
  FROM labels.logs AS log
  CROSS JOIN UNNEST(GENERATE_ARRAY(0, ARRAY_LENGTH(log.turns) - 1)) AS turn_index
) AS log;

CREATE OR REPLACE VIEW labels.turns AS
SELECT
  label.*,
  said.text, said.response, said.action, said.status, said.domain, said.asr, said.nlu, said.entities,
  said.wake_score, said.barge_in, said.started_at, said.locale, said.device, said.user_id,
  REGEXP_EXTRACT(label._FILE_NAME, r'/turns/([0-9a-f]{16})/') AS dataset
FROM labels.turns_files AS label
LEFT JOIN labels.said AS said
  ON said.dataset = REGEXP_EXTRACT(label._FILE_NAME, r'/turns/([0-9a-f]{16})/')
  AND said.dialogue_id = label.dialogue_id
  AND said.turn_index = label.turn_index;

CREATE OR REPLACE VIEW labels.goals AS
SELECT
  label.*,
  said.text, said.domain, said.started_at, said.locale, said.device, said.user_id,
  REGEXP_EXTRACT(label._FILE_NAME, r'/goals/([0-9a-f]{16})/') AS dataset
FROM labels.goals_files AS label
LEFT JOIN labels.said AS said
  ON said.dataset = REGEXP_EXTRACT(label._FILE_NAME, r'/goals/([0-9a-f]{16})/')
  AND said.dialogue_id = label.dialogue_id
  AND said.turn_index = label.turn_indexes[SAFE_OFFSET(0)];

CREATE OR REPLACE VIEW labels.dialogues AS
SELECT
  label.*,
  said.dialogue_started_at AS started_at, said.locale, said.device, said.user_id,
  REGEXP_EXTRACT(label._FILE_NAME, r'/dialogues/([0-9a-f]{16})/') AS dataset
FROM labels.dialogues_files AS label
LEFT JOIN labels.said AS said
  ON said.dataset = REGEXP_EXTRACT(label._FILE_NAME, r'/dialogues/([0-9a-f]{16})/')
  AND said.dialogue_id = label.dialogue_id
  AND said.turn_index = 0;

CREATE OR REPLACE VIEW labels.rejected AS
SELECT label.*, REGEXP_EXTRACT(label._FILE_NAME, r'/rejected/([0-9a-f]{16})/') AS dataset
FROM labels.rejected_files AS label;
