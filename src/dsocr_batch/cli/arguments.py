"""The options of ``dsocr-batch run`` as argv knows them: what each is called, takes and means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsocr_batch.cli.logs import LogLevel as _LogLevel
from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_path
from dsocr_batch.options import DEFAULT_GPU_MEMORY_UTILIZATION, RoiOptions, parse_config
from dsocr_batch.profiles import VisionMode as _VisionMode
from dsocr_batch.records import Mode as _Mode
from dsocr_batch.scheduler import ShardFrom as _ShardFrom

INPUT, OUTPUT, READING, AGAIN, ENGINES, SHARDS, LIMITS, LOGGING = (
    "What to read",
    "Where results go",
    "How pages are read",
    "Reading again",
    "One engine's own",
    "Sharing the work",
    "Limits",
    "Logging",
)
DEFAULT_ROI = RoiOptions()


def config_defaults(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a TOML file the defaults of the options; flags on the line win."""
    if path is None:
        return None
    known = {
        parameter.name: getattr(parameter, "multiple", False)
        for parameter in context.command.params
        if parameter.name != "config"
    }
    try:
        defaults = parse_config(path.read_bytes(), known)
    except OSError as error:
        raise UsageError(f"--config {display_path(path)}: {error.strerror}") from error
    except UsageError as error:
        raise UsageError(f"--config {display_path(path)}: {error}") from error
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


InputDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Read the PDFs and images in this directory, or below s3://BUCKET/PREFIX.",
        rich_help_panel=INPUT,
    ),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", help="Also its sub-directories.", rich_help_panel=INPUT)
]
Pdf = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Read this file; may be repeated.", rich_help_panel=INPUT),
]
InputList = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Read the files named in this file, one a line.",
        rich_help_panel=INPUT,
    ),
]
SpoolDir = Annotated[
    Path | None,
    typer.Option(
        help="Where objects are kept while they are read.",
        show_default="TMPDIR",
        rich_help_panel=INPUT,
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        help="Try the passwords in this file, one a line, on every encrypted document. "
        "Documents that failed as encrypted before are tried again.",
        rich_help_panel=INPUT,
    ),
]
Pages = Annotated[
    str,
    typer.Option(help="Only these pages of each document: 1-20,30,45-.", rich_help_panel=INPUT),
]
MaxPages = Annotated[
    int | None,
    typer.Option(min=1, help="At most so many pages of each.", rich_help_panel=INPUT),
]
LimitDocs = Annotated[
    int | None,
    typer.Option(min=1, help="Only the first so many documents.", rich_help_panel=INPUT),
]
OutputDir = Annotated[
    str | None,
    typer.Option(
        help="Put results here: a folder, or s3://BUCKET/PREFIX.",
        show_default="INPUT_DIR/dsocr_MODE",
        rich_help_panel=OUTPUT,
    ),
]
Mode = Annotated[
    _Mode,
    typer.Option(
        help="clean: markdown. grounded: beside it, markdown with labelled boxes.",
        rich_help_panel=OUTPUT,
    ),
]
SaveImages = Annotated[
    bool,
    typer.Option("--save-images", help="Keep each page as a PNG.", rich_help_panel=OUTPUT),
]
SaveFigures = Annotated[
    bool,
    typer.Option(
        "--save-figures",
        help="Cut the pictures out of the pages and link them in the markdown. Later too: "
        "finished documents get them without being read again.",
        rich_help_panel=OUTPUT,
    ),
]
SaveLayout = Annotated[
    bool,
    typer.Option(
        "--save-layout",
        help="Write the original pages with labelled boxes over them, as a PDF. Later too.",
        rich_help_panel=OUTPUT,
    ),
]
MergeTables = Annotated[
    bool,
    typer.Option(
        "--merge-tables",
        help="Make one table of parts on successive pages: same columns, nothing between. "
        "Finished documents are written again, with it or without it, not read again.",
        rich_help_panel=OUTPUT,
    ),
]
DiscardRaw = Annotated[
    bool,
    typer.Option(
        "--discard-raw",
        help="Do not keep the engine's raw text of documents that are wholly read.",
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Read everything again, whatever is done.", rich_help_panel=OUTPUT
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option(
        "--skip-existing",
        help="Accepted for old scripts: finished pages are never read again anyway.",
        rich_help_panel=OUTPUT,
    ),
]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed",
        help="Keep what was read with other settings, read the rest with these.",
        rich_help_panel=OUTPUT,
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="Try again what failed by the file's own fault (encrypted, corrupt, hanging).",
        rich_help_panel=OUTPUT,
    ),
]
OnlyFailed = Annotated[
    bool,
    typer.Option(
        "--only-failed",
        help="Take up the documents in which something failed, whatever the reason, and no others.",
        rich_help_panel=OUTPUT,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print what would be done, one document a line, and do nothing.",
        rich_help_panel=OUTPUT,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help="auto, or the name of an engine. auto takes vllm where there is a CUDA device, "
        "else rapidocr, which runs on any CPU but is not DeepSeek-OCR.",
        rich_help_panel=READING,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="The model to read with.", show_default="engine", rich_help_panel=READING),
]
Prompt = Annotated[
    str | None,
    typer.Option(help="Prompt, whatever the mode.", show_default="mode's", rich_help_panel=READING),
]
CleanPrompt = Annotated[
    str | None, typer.Option(help="Prompt of clean mode.", rich_help_panel=READING)
]
GroundedPrompt = Annotated[
    str | None, typer.Option(help="Prompt of grounded mode.", rich_help_panel=READING)
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        min=1, help="Tokens a page may have.", show_default="engine", rich_help_panel=READING
    ),
]
BatchPages = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Pages inside the engine at once.",
        show_default="engine",
        rich_help_panel=READING,
    ),
]
Dpi = Annotated[
    int,
    typer.Option(
        min=36,
        max=600,
        help="Resolution of a page; small pages get more.",
        rich_help_panel=READING,
    ),
]
CpuWorkers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that render.",
        show_default="the cores that the engine leaves",
        rich_help_panel=READING,
    ),
]
VisionMode = Annotated[
    _VisionMode | None,
    typer.Option(
        help="How the model looks at a page. gundam: a view of the whole page and up to six "
        "tiles; the others: one view, of 512 (tiny) to 1280 (large) pixels.",
        show_default="gundam",
        rich_help_panel=READING,
    ),
]
NgramSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="No run of so many tokens may come twice within the window.",
        show_default="engine",
        rich_help_panel=READING,
    ),
]
NgramWindow = Annotated[
    int | None,
    typer.Option(
        min=1, help="The window, in tokens.", show_default="engine", rich_help_panel=READING
    ),
]
NgramWhitelist = Annotated[
    list[str] | None,
    typer.Option(
        help="A token that may repeat all the same; may be repeated.",
        show_default="<td>, </td>",
        rich_help_panel=READING,
    ),
]
RetryLarge = Annotated[
    bool,
    typer.Option(
        "--retry-large",
        help="Read a page again in the large mode if it looped, was cut off, or lacks a "
        "label of --retry-label; the better reading is kept. Mind that by default each "
        "page without a table lacks one.",
        rich_help_panel=AGAIN,
    ),
]
RetryLabel = Annotated[
    list[str] | None,
    typer.Option(
        help="A label that every page should have; may be repeated. none: only loops and "
        "cuts count. In clean mode a table is all that can be seen.",
        show_default="table",
        rich_help_panel=AGAIN,
    ),
]
RetryLargeCap = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Retry at most so many pages of a document, the first ones.",
        show_default="no limit",
        rich_help_panel=AGAIN,
    ),
]
RoiSecondPass = Annotated[
    bool,
    typer.Option(
        "--roi-second-pass",
        help="Grounded mode: render regions of each page again, as large as the model can "
        "use, read them, and keep what was read beside the page.",
        rich_help_panel=AGAIN,
    ),
]
RoiLabel = Annotated[
    list[str] | None,
    typer.Option(
        help="A label whose regions are read again; may be repeated.",
        show_default=", ".join(DEFAULT_ROI.labels),
        rich_help_panel=AGAIN,
    ),
]
RoiMinArea = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="The least share of the page that such a region covers.",
        show_default=f"{DEFAULT_ROI.min_area:g}",
        rich_help_panel=AGAIN,
    ),
]
RoiMerge = Annotated[
    bool,
    typer.Option(
        "--roi-merge",
        help="Put the better of the two texts into the document.",
        rich_help_panel=AGAIN,
    ),
]
RoiPrompt = Annotated[
    str | None,
    typer.Option(
        help="Prompt for regions.", show_default="that of clean mode", rich_help_panel=AGAIN
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        help="openai: where the server is, such as http://localhost:8000/v1. A key is taken "
        "from DSOCR_API_KEY or OPENAI_API_KEY.",
        rich_help_panel=ENGINES,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="vllm: number format of the weights.", show_default="bfloat16", rich_help_panel=ENGINES
    ),
]
NoFp8Kv = Annotated[
    bool,
    typer.Option(
        "--no-fp8-kv",
        help="vllm: keep the KV cache in --dtype, not in FP8.",
        rich_help_panel=ENGINES,
    ),
]
EnableFp8Weights = Annotated[
    bool,
    typer.Option(
        "--enable-fp8-weights",
        help="vllm: make the weights FP8 while loading.",
        rich_help_panel=ENGINES,
    ),
]
GpuMemoryUtilization = Annotated[
    float | None,
    typer.Option(
        min=0.05,
        max=1.0,
        help="vllm: share of the GPU's memory.",
        show_default=f"{DEFAULT_GPU_MEMORY_UTILIZATION:g}",
        rich_help_panel=ENGINES,
    ),
]
TensorParallelSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="vllm: GPUs that hold the model together. One GPU holds it easily: rather one "
        "shard a GPU.",
        show_default="1",
        rich_help_panel=ENGINES,
    ),
]
MmEncoderTpMode = Annotated[
    str | None,
    typer.Option(
        help="vllm: how those GPUs share the vision encoder: weights, or data.",
        show_default="weights",
        rich_help_panel=ENGINES,
    ),
]
EngineArg = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="vllm: anything else of its engine arguments; may be repeated.",
        rich_help_panel=ENGINES,
    ),
]
NumShards = Annotated[
    int | None,
    typer.Option(
        help="Into how many shards the corpus is cut.", show_default="1", rich_help_panel=SHARDS
    ),
]
ShardIndex = Annotated[
    int | None,
    typer.Option(
        help="Which of them this run reads, from 0.", show_default="0", rich_help_panel=SHARDS
    ),
]
ShardFrom = Annotated[
    _ShardFrom | None,
    typer.Option(
        help="Take both from what the scheduler sets in the environment; auto finds out which one "
        "it is, and reads everything where there is none.",
        rich_help_panel=SHARDS,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Read with all nodes of a Ray cluster, of which this machine is one: auto, or "
        "HOST:PORT of its head. Inputs must lie in an object store or on a file system that all "
        "nodes share, with --save-images the output as well.",
        rich_help_panel=SHARDS,
    ),
]
RayCpus = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPUs of a node for each engine and its processes that render.",
        show_default="a GPU's share, without GPUs all",
        rich_help_panel=SHARDS,
    ),
]
PageTimeout = Annotated[
    float,
    typer.Option(min=1.0, help="Seconds to render a page.", rich_help_panel=LIMITS),
]
EngineTimeout = Annotated[
    float,
    typer.Option(
        min=1.0, help="Seconds without a sign of life from the engine.", rich_help_panel=LIMITS
    ),
]
MaxRuntime = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="Seconds after which no more pages are taken.", rich_help_panel=LIMITS
    ),
]
MaxFailedShare = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Stop if more than this share of pages fails, judged after 200 pages.",
        rich_help_panel=LIMITS,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        callback=config_defaults,
        is_eager=True,
        help="TOML file of options; flags win over it.",
        rich_help_panel=LOGGING,
    ),
]
LogLevel = Annotated[_LogLevel, typer.Option(help="How much to log.", rich_help_panel=LOGGING)]
LogFile = Annotated[
    Path | None,
    typer.Option(help="Also log into this file; it is rotated.", rich_help_panel=LOGGING),
]
ContentDebug = Annotated[
    bool,
    typer.Option(
        "--content-debug",
        help="Log how each page was read and how its text begins.",
        rich_help_panel=LOGGING,
    ),
]
NoProgress = Annotated[
    bool,
    typer.Option(
        "--no-progress",
        help="No progress and no closing table: the log only.",
        rich_help_panel=LOGGING,
    ),
]
