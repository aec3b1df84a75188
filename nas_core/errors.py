"""The errors that a person can act on.

Every message names the file or key that is wrong and says what to do. The command line prints
them without a traceback and exits with a code other than 0; anything else that is raised is a
defect of the program and keeps its traceback.
"""


class NasError(Exception):
    """Base of all errors whose message is meant for the user."""


class SettingsError(NasError):
    """A setting is unknown, malformed or out of range."""


class GenotypeError(NasError):
    """An architecture is malformed or not in the search space."""


class DataError(NasError):
    """A dataset, or a file of it, cannot be used. The message lists every problem found."""


class WeightsError(NasError):
    """Weights are missing, unreadable, or of another network."""


class RunError(NasError):
    """What a run needs (journal, checkpoint, results) cannot be used, or the run did not complete.

    `nas run` raises it with the state in which the run of a deployment ended.
    """


class ServiceError(NasError):
    """A server (Prefect, MLflow) does not answer, or cannot be started."""


class UnavailableError(ServiceError):
    """A server does not answer for now: the same request may succeed later."""


class CandidateError(NasError):
    """The training of one candidate failed; the search goes on without a reward for it."""
