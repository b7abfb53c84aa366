"""Load a model with a progress bar."""

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

from engine.catalog import OnProgress
from engine.catalog import Progress as FetchProgress
from engine.config import default_cache_dir
from engine.model import LoadedModel, load


def load_shown(model: str, console: Console, adapter: str | None = None) -> LoadedModel:
    """The model, ready to run. adapter: a folder that training wrote. Raises ModelError."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        shower = _shower(bars, model)
        return load(model, cache_dir=default_cache_dir(), adapter_path=adapter, on_progress=shower)


def _shower(bars: Progress, model: str) -> OnProgress:
    task = bars.add_task(f"loading {model}", total=None)

    def show(progress: FetchProgress) -> None:
        bars.update(task, description=progress.stage, completed=progress.done_bytes, total=progress.total_bytes)

    return show
