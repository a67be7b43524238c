"""``streamsvc init``: a first configuration, with comments, and the schema by which editors complete it."""

from __future__ import annotations

import json
from pathlib import Path

from streamsvc.config_reference import schema
from streamsvc.errors import ConfigError

SCHEMA = "streamsvc.schema.json"

STARTER = """\
# yaml-language-server: $schema=./{schema}
#
# With the line above, an editor that knows YAML completes keys and says what they mean. Then:
#
#   streamsvc validate --online {file}   # is it right, and do the broker and the stores agree?
#   streamsvc preview {file}             # the newest records, decoded and placed; writes nothing
#   streamsvc run {file}                 # until Ctrl-C; with --until-end: until what is there now has landed
#   streamsvc status {file}              # how far it is
#
# ${{NAME}} is an environment variable, ${{NAME:-default}} has a default.

service: my-service                     # names the consumer group, and all metrics
state: {state}        # who has read what; anywhere that can create exclusively: s3://bucket/_streamsvc
memory: 1GiB                            # for everything buffered; over it the source waits
http: {{listen: "127.0.0.1:8080"}}        # a page for people; /metrics /livez /readyz

# aws: {{region: eu-central-1}}           # of s3:// and kinesis; credentials as AWS's tools find them

pipelines:
  access:
    source:
      kafka: {{brokers: "${{KAFKA_BROKERS:-127.0.0.1:9092}}", topics: [access]}}
      # kinesis: {{stream: access}}
    decode: {{apache: combined}}          # common, vhost_combined, error, or a LogFormat string
    # decode: {{json: {{schema: {{id: int64, at: timestamp, name: string}}}}}}
    # decode: {{json: {{schema: infer}}}}   # columns from a sample, once
    # transform:                        # SQL over one record at a time
    #   - sql: SELECT * FROM input WHERE path <> '/livez'
    sink:
      path: {lake}
      # partition_by: {{day: "strftime(datetime, '%Y-%m-%d')"}}
      buffer: {{size: 128MiB, interval: 1m}}   # an object is closed by size or by time, whichever comes first
    rejects: {{path: {rejects}}}   # what cannot be decoded, with the reason
"""


def init(file: Path) -> int:
    """Answers the exit code. Overwrites nothing. Raises ``ConfigError``."""
    lake = file.parent.resolve() / "lake"
    paths = {part: json.dumps(f"file://{lake}/{part}", ensure_ascii=False) for part in ("state", "access", "rejects")}
    text = STARTER.format(
        schema=SCHEMA, file=file, state=paths["state"], lake=paths["access"], rejects=paths["rejects"]
    )
    beside = file.with_name(SCHEMA)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
        if not beside.exists():
            beside.write_text(schema(), encoding="utf-8")
    except FileExistsError:
        raise ConfigError([f"{file}: is there already, and stays as it is; give another name"]) from None
    except OSError as error:
        raise ConfigError([f"{error.filename}: cannot be written: {error.strerror}"]) from None
    print(f"{file} is written; say in it what to read, then: streamsvc validate --online {file}")
    return 0
