"""The record in MLflow. Only this package imports mlflow."""

from tasks.tracking.models import RegisteredTraining, TrainingEntry, log_test, log_training
from tasks.tracking.provenance import provenance_tags
from tasks.tracking.store import redacted, tracking_uri
from tasks.tracking.tracker import CandidateEntry, Tracker

__all__ = [
    "CandidateEntry",
    "RegisteredTraining",
    "Tracker",
    "TrainingEntry",
    "log_test",
    "log_training",
    "provenance_tags",
    "redacted",
    "tracking_uri",
]
