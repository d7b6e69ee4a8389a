"""The files by which a local run's worker and everybody else talk: the small stand-in for a `modal.Dict` entry."""

CALL_FILE = "call.json"
CONTROL_FILE = "control"
SNAPSHOT_FILE = "snapshot.json"
WORKER_LOG_FILE = "worker.txt"
