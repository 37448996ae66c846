-- The tables of `faultline query` in Spark SQL, 3.4 or newer: labels on an object store, with what the logs say beside
-- them.
--
-- Put in your own names: s3://BUCKET/out (the --output of faultline label), s3://BUCKET/logs (the logs in the canonical
-- form, as Parquet) and labels (the database). The columns are those of the README's section "Query it".

CREATE TABLE labels.turns_files
USING PARQUET OPTIONS (recursiveFileLookup 'true') LOCATION 's3://BUCKET/out/turns';

CREATE TABLE labels.goals_files
USING PARQUET OPTIONS (recursiveFileLookup 'true') LOCATION 's3://BUCKET/out/goals';

CREATE TABLE labels.dialogues_files
USING PARQUET OPTIONS (recursiveFileLookup 'true') LOCATION 's3://BUCKET/out/dialogues';

CREATE TABLE labels.rejected_files
USING PARQUET OPTIONS (recursiveFileLookup 'true') LOCATION 's3://BUCKET/out/rejected';

CREATE TABLE labels.logs_files
USING PARQUET OPTIONS (recursiveFileLookup 'true') LOCATION 's3://BUCKET/logs';

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
  COALESCE(turn.text, GET(turn.asr, 0).text) AS text,
  turn.response.text AS response,
  turn.response.action AS action,
  turn.response.status AS status,
  GET(turn.nlu, 0).domain AS domain,
  COALESCE(turn.asr, ARRAY()) AS asr,
  COALESCE(turn.nlu, ARRAY()) AS nlu,
  COALESCE(turn.entities, ARRAY()) AS entities,
  turn.wake_score,
  turn.barge_in,
  COALESCE(turn.started_at, log.started_at, GET(log.turns, 0).started_at) AS started_at,
  COALESCE(log.started_at, GET(log.turns, 0).started_at) AS dialogue_started_at,
  log.locale,
  log.device,
  log.user_id
FROM labels.logs AS log
LATERAL VIEW POSEXPLODE(log.turns) AS turn_index, turn;

CREATE OR REPLACE VIEW labels.turns AS
SELECT
  label.*,
  said.text, said.response, said.action, said.status, said.domain, said.asr, said.nlu, said.entities,
  said.wake_score, said.barge_in, said.started_at, said.locale, said.device, said.user_id,
  REGEXP_EXTRACT(label._metadata.file_path, '/turns/([0-9a-f]{16})/', 1) AS dataset
FROM labels.turns_files AS label
LEFT JOIN labels.said AS said
  ON said.dataset = REGEXP_EXTRACT(label._metadata.file_path, '/turns/([0-9a-f]{16})/', 1)
  AND said.dialogue_id = label.dialogue_id
  AND said.turn_index = label.turn_index;

CREATE OR REPLACE VIEW labels.goals AS
SELECT
  label.*,
  said.text, said.domain, said.started_at, said.locale, said.device, said.user_id,
  REGEXP_EXTRACT(label._metadata.file_path, '/goals/([0-9a-f]{16})/', 1) AS dataset
FROM labels.goals_files AS label
LEFT JOIN labels.said AS said
  ON said.dataset = REGEXP_EXTRACT(label._metadata.file_path, '/goals/([0-9a-f]{16})/', 1)
  AND said.dialogue_id = label.dialogue_id
  AND said.turn_index = GET(label.turn_indexes, 0);

CREATE OR REPLACE VIEW labels.dialogues AS
SELECT
  label.*,
  said.dialogue_started_at AS started_at, said.locale, said.device, said.user_id,
  REGEXP_EXTRACT(label._metadata.file_path, '/dialogues/([0-9a-f]{16})/', 1) AS dataset
FROM labels.dialogues_files AS label
LEFT JOIN labels.said AS said
  ON said.dataset = REGEXP_EXTRACT(label._metadata.file_path, '/dialogues/([0-9a-f]{16})/', 1)
  AND said.dialogue_id = label.dialogue_id
  AND said.turn_index = 0;

CREATE OR REPLACE VIEW labels.rejected AS
SELECT label.*, REGEXP_EXTRACT(label._metadata.file_path, '/rejected/([0-9a-f]{16})/', 1) AS dataset
FROM labels.rejected_files AS label;
