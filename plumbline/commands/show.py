"""Showing runs and artefacts on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.tree import Tree

from plumbline.runs.artifacts import MANIFEST, Artifact, Store
from plumbline.runs.progress import duration, size
from plumbline.runs.run import RunRecord
from plumbline.runs.run_file import RUN_FILE
from plumbline.terminal import column_to_copy


def show(console: Console, home: Path, name: str, *, verify: bool) -> bool:
    """Show a run or an artefact; return False if verifying found damage."""
    if (home / name / RUN_FILE).exists():
        record = RunRecord(home / name)
        _show_run(console, record)
        artifacts = list(record.artifacts.values())
    else:
        artifacts = [Store(home / "store").get(name)]
        _show_artifact(console, artifacts[0])
    return not verify or _verify(console, artifacts)


def _show_run(console: Console, run: RunRecord) -> None:
    state = run.state
    console.print(f"[bold]{run.folder.name}[/bold]  {state['recipe']}, {run.status}")
    if state.get("reason"):
        console.print(f"  [red]{escape(state['reason'])}[/red]")
    artifacts = run.artifacts
    stages = column_to_copy("stage", artifacts, console)
    identities = column_to_copy(
        "artifact", (artifact.id for artifact in artifacts.values()), console
    )
    metrics = Column("figures", overflow="fold")
    table = Table(stages, identities, "time", "memory", metrics, box=None, pad_edge=False)
    for name, artifact in artifacts.items():
        manifest = artifact.manifest
        table.add_row(
            name,
            artifact.id,
            duration(manifest.seconds),
            size(manifest.peak_memory_bytes),
            headline(artifact, 3),
        )
    console.print(table)
    for file in ("report.html", "report.md", "summary.json", "config.yaml", "metrics.jsonl"):
        if (run.folder / file).exists():
            console.print(f"  {run.folder / file}")


def _show_artifact(console: Console, artifact: Artifact) -> None:
    manifest = artifact.manifest
    console.print(f"[bold]{manifest.id}[/bold]  made by {manifest.stage}")
    console.print(f"  {artifact.path}")
    console.print(
        f"  seed {manifest.seed}, data seed {manifest.data_seed}, "
        f"{duration(manifest.seconds)}, {size(manifest.peak_memory_bytes)}"
    )
    for name, value in manifest.metrics.items():
        console.print(f"    {name:<32} {'–' if value is None else f'{value:.6g}'}")
    console.print("  files")
    for name, entry in manifest.files.items():
        console.print(f"    {name:<44} {size(entry.bytes):>10}  {entry.sha256[:12]}")
    console.print("  with " + ", ".join(f"{n} {v}" for n, v in manifest.versions.items()))
    tree = Tree(f"[bold]{manifest.id}[/bold]")
    _grow(tree, artifact, Store(artifact.path.parent), set())
    console.print(tree)


def _grow(tree: Tree, artifact: Artifact, store: Store, seen: set[str]) -> None:
    """Add what an artefact was made from, and what that was made from."""
    for place, identity in artifact.manifest.inputs.items():
        if identity in seen:
            tree.add(f"[dim]{place}: {identity} (see above)[/dim]")
            continue
        seen.add(identity)
        parent = Artifact(store.path(identity))
        if not (parent.path / MANIFEST).exists():
            tree.add(f"[red]{place}: {identity} (gone)[/red]")
        else:
            _grow(tree.add(f"{place}: {identity}"), parent, store, seen)


def _verify(console: Console, artifacts: list[Artifact]) -> bool:
    damaged = {a.id: problems for a in artifacts if (problems := a.problems(hashes=True))}
    for identity, problems in damaged.items():
        console.print(f"[red]{identity}: {'; '.join(problems)}[/red]")
    if not damaged:
        count = sum(len(a.manifest.files) for a in artifacts)
        console.print(f"[green]{count} files are as they were made.[/green]")
    return not damaged


def headline(artifact: Artifact, count: int) -> str:
    """Return an artefact's first headline metrics on one line."""
    shown = list(artifact.metrics.items())[:count]
    return "  ".join(f"{name} {value:.4g}" for name, value in shown if value is not None)
