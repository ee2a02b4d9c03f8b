"""The command line: commands, and errors → exit statuses."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from dsocr_batch import __version__
from dsocr_batch.bench.commands import bench
from dsocr_batch.cli.doctor import doctor
from dsocr_batch.cli.download import download
from dsocr_batch.cli.launch import TAKES_RUN_OPTIONS, launch
from dsocr_batch.cli.rebuild import postprocess, reprocess
from dsocr_batch.cli.run import run
from dsocr_batch.cli.status import failures, status
from dsocr_batch.errors import DsocrError, ExitStatus
from dsocr_batch.names import display_text
from dsocr_batch.progress import SteadyConsole

log = logging.getLogger("dsocr_batch")

cli = typer.Typer(
    name="dsocr-batch",
    help="Turn a large corpus of PDFs into good markdown.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli.command(no_args_is_help=True)(run)
cli.command(no_args_is_help=True, context_settings=TAKES_RUN_OPTIONS)(launch)
cli.command(no_args_is_help=True)(status)
cli.command(no_args_is_help=True)(failures)
cli.command()(postprocess)
cli.command(no_args_is_help=True)(reprocess)
cli.command()(download)
cli.command()(doctor)
cli.add_typer(bench, name="bench")


def main() -> None:
    """Run the command line and exit with the status that ``errors.ExitStatus`` lists."""
    console = SteadyConsole(stderr=True)
    try:
        cli()
    except DsocrError as error:
        message = "\n".join(map(display_text, f"dsocr-batch: {error}".split("\n")))
        console.print(message, style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(ExitStatus.SIGINT)
    except Exception:
        log.exception("a bug; please report it")
        sys.exit(ExitStatus.BUG)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@cli.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del version
