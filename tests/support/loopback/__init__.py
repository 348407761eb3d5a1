"""OpenAI and Anthropic on the loopback interface, for the tests of both adapters.

The real clients talk to them: what a client does with a dropped stream, an early `aclose()` or an argument that its
provider does not know shows only there. The servers know no framework.
"""

from .anthropic_server import AnthropicServer
from .labelling_server import LabellingServer, parts, questions
from .openai_server import OpenAIServer
from .serving import Body, Fault, ProviderServer, only_loopback, until

__all__ = [
    "AnthropicServer",
    "Body",
    "Fault",
    "LabellingServer",
    "OpenAIServer",
    "ProviderServer",
    "only_loopback",
    "parts",
    "questions",
    "until",
]
