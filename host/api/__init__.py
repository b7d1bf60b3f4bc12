"""What the command line does, for Python programs: a workspace, its devices, models and studies."""

from host.api.measuring import MeasuredModel, MeasuringProgress, NotMeasuredError, TimedOutError
from host.api.study import Found, Message, Progress, StageBegan, Study, StudyEvent, StudyStatus
from host.api.workspace import EnrolledDevice, OpenWorkspace, open_workspace

__all__ = [
    "EnrolledDevice",
    "Found",
    "MeasuredModel",
    "MeasuringProgress",
    "Message",
    "NotMeasuredError",
    "OpenWorkspace",
    "Progress",
    "StageBegan",
    "Study",
    "StudyEvent",
    "StudyStatus",
    "TimedOutError",
    "open_workspace",
]
