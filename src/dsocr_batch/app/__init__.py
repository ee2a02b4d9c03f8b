"""The composition root: options → documents, engine and pipeline → a run and its report."""

from dsocr_batch.app.job import Job, prepare
from dsocr_batch.app.rebuild import reprocess
from dsocr_batch.app.report import Outcome
from dsocr_batch.app.run import plan, run

__all__ = ["Job", "Outcome", "plan", "prepare", "reprocess", "run"]
