"""Recording real traffic, so that it becomes the next training set: off until an adapter is given a `Recorder`."""

from prefroute.recording.recorder import Rating, Recorder
from prefroute.recording.records import Feedback, Recorded, RecordedCall, read_recorded

__all__ = ["Feedback", "Rating", "Recorded", "RecordedCall", "Recorder", "read_recorded"]
