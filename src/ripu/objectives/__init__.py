"""The objectives of training, one file each."""

from ripu.objectives.interface import Batch, Network, Objective, Student
from ripu.objectives.ripu import RipuObjective
from ripu.objectives.teacher import TeacherObjective

__all__ = ["Batch", "Network", "Objective", "RipuObjective", "Student", "TeacherObjective"]
