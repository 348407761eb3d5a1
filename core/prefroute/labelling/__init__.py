"""Labels for prompts of one's own: both models are asked, and their answers compared."""

from prefroute.labelling.api import alabel_prompts, estimate_labels, label_prompts
from prefroute.labelling.endpoints import Endpoint
from prefroute.labelling.functions import load_function
from prefroute.labelling.instructions import bundled_instructions, read_instructions
from prefroute.labelling.judging import PairwiseJudge, ReferenceScore
from prefroute.labelling.labellers import Answered, Golden, Labeller, OwnLabel
from prefroute.labelling.prompts import read_referenced_prompts
from prefroute.labelling.rows import Prompt
from prefroute.labelling.spending import CallsEstimate, Estimate
from prefroute.labelling.summary import LabelSummary

__all__ = [
    "Answered",
    "CallsEstimate",
    "Endpoint",
    "Estimate",
    "Golden",
    "LabelSummary",
    "Labeller",
    "OwnLabel",
    "PairwiseJudge",
    "Prompt",
    "ReferenceScore",
    "alabel_prompts",
    "bundled_instructions",
    "estimate_labels",
    "label_prompts",
    "load_function",
    "read_instructions",
    "read_referenced_prompts",
]
