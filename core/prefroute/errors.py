"""Every exception that prefroute raises.

* PrefrouteError
  * ConfigurationError (ValueError): a setting that cannot be used
    * ThresholdError: a threshold that is missing or not a finite number
  * DataError (ValueError): training data that cannot be read or used
  * ConvergenceError (RuntimeError): a fit that did not converge
  * EmbeddingError (RuntimeError): an embedding model could not be reached, or its answer cannot be used
  * PromptTypeError (TypeError): something that is not text was given as a prompt
  * RouterError (RuntimeError): a router could not score; only raised with `on_error="raise"`
    * RouterTimeoutError (TimeoutError): it did not answer within its time limit
    * ScoreError: it answered with something that is not one probability a prompt
  * PersistenceError (ValueError): a saved router cannot be written or read
    * RouterNotFoundError (FileNotFoundError): there is none under that name
  * MissingExtraError (ImportError): an optional dependency is not installed
"""

from __future__ import annotations


class PrefrouteError(Exception):
    """Base class of every exception that prefroute raises."""


class ConfigurationError(PrefrouteError, ValueError):
    """A setting that cannot be used."""


class ThresholdError(ConfigurationError):
    """A threshold that is missing or not a finite number."""


class DataError(PrefrouteError, ValueError):
    """Training data that cannot be read or used; the message says where."""


class ConvergenceError(PrefrouteError, RuntimeError):
    """A fit that did not converge; its last step is not used."""


class EmbeddingError(PrefrouteError, RuntimeError):
    """An embedding model could not be reached, or answered with something that is not one finite row a text."""


class PromptTypeError(PrefrouteError, TypeError, ValueError):
    """Something that is not text was given as a prompt.

    A ValueError too, because that is what LangChain's chat models raise there.
    """


class RouterError(PrefrouteError, RuntimeError):
    """A router could not score; the router's own exception is the `__cause__`."""


class RouterTimeoutError(RouterError, TimeoutError):
    """A router did not answer within its time limit."""


class ScoreError(RouterError):
    """A router answered with something that is not one probability in [0, 1] a prompt."""


class PersistenceError(PrefrouteError, ValueError):
    """A saved router cannot be written or read."""


class RouterNotFoundError(PersistenceError, FileNotFoundError):
    """There is no saved router under that name."""

    # FileNotFoundError (an OSError) formats itself as "[Errno 2] ..." from two arguments; one message reads better.
    def __str__(self) -> str:
        """The message alone."""
        return str(self.args[0]) if self.args else ""


class MissingExtraError(PrefrouteError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""
