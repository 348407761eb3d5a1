"""The command itself: its sub-commands, and how it ends."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from prefroute import __version__
from prefroute.cli._calibrate import calibrate
from prefroute.cli._console import printable
from prefroute.cli._demo import demo
from prefroute.cli._evaluate import evaluate
from prefroute.cli._fit import fit
from prefroute.cli._label import label
from prefroute.cli._route import route
from prefroute.cli._train import train
from prefroute.errors import ConfigurationError, PrefrouteError

# typer carries its own copy of click from some release on, so click's class is found through typer.
_USAGE_ERROR: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

_USAGE = 2
_INTERRUPTED = 130

app = typer.Typer(
    help="Learned routing between a strong and a weak chat model.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(route)
app.command()(demo)
app.add_typer(train, name="train")
app.command()(evaluate)
app.command()(calibrate)
app.command()(label)
app.command()(fit)


def main() -> None:
    """Run the command; whatever goes wrong is one line on stderr and a non-zero exit status."""
    if hasattr(sys.stdout, "reconfigure"):
        # A terminal that cannot show a character gets its escape, not a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except _USAGE_ERROR as error:
        _fail(error.format_message(), error.exit_code)
    except ConfigurationError as error:
        _fail(str(error), _USAGE)
    except PrefrouteError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # The reader has gone (`| head`). Python would complain once more when it flushes stdout at exit.
        sys.stdout = None
        sys.exit(1)
    except OSError as error:  # A full disk under a redirected stdout.
        sys.stdout = None
        _fail(str(error), 1)
    if status == _INTERRUPTED:  # typer makes an exit status of Ctrl-C.
        _fail("interrupted", _INTERRUPTED)
    sys.exit(status)


def _fail(message: str, status: int) -> None:
    sys.stderr.write(f"prefroute: {printable(message)}\n")
    sys.exit(status)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag's value
    if wanted:
        typer.echo(f"prefroute {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Learned routing between a strong and a weak chat model."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
