"""Writes what a source holds into a folder that travels, an episode at a time; its run may go on meanwhile."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.durable import sync_folder, write_durably
from common.errors import UserError
from common.lock import LOCK_NAME, InUseError, claim
from common.sequence import Chunk, Rows
from replay_service.codec import CodecError
from replay_service.datasets import files, manifest
from replay_service.datasets.manifest import EpisodeFile, Manifest, Origin
from replay_service.source import Facts, Source, lost
from replay_service.stock import EpisodePart, Stored, episode_parts, in_order
from replay_service.stores.trouble import ChunkGoneError

_TEMPORARY = ".writing-"


@dataclass
class Exported:
    """What became of an export.

    Attributes:
        manifest: of the dataset.
        damaged: a line for each chunk that is left out because it is damaged, missing or not finite.
        evicted: chunks that are left out because the run evicted them before they were read.
    """

    manifest: Manifest = field(default_factory=Manifest)
    damaged: list[str] = field(default_factory=list)
    evicted: int = 0


def export(source: Source, out: Path, progress: Callable[[int, int], None]) -> Exported:
    """Writes everything that the source holds now.

    Args:
        source: what to write.
        out: the folder; it appears when all is written.
        progress: told how many of how many parts are done.

    Raises:
        UserError: `out` is there already or cannot be written, or nothing that is held can be read.
    """
    facts, result, gone = source.facts, Exported(), list[Stored]()
    chunks = in_order(source.stocks())
    places = {(stored.shard, stored.sequence): place for place, stored in enumerate(chunks)}
    pieces, written = episode_parts(chunks), list[EpisodeFile]()
    with _appearing(out) as folder:
        for done, part in enumerate(pieces):
            progress(done, len(pieces))
            for run in _readable(source, part, result, gone):
                name = f"{len(written):06d}.safetensors"
                written.append(_write(folder / name, run, [places[stored[:2]] for stored, _ in run]))
        progress(len(pieces), len(pieces))
        missing = lost(source, gone)
        result.damaged += (f"{stored}: it is not there" for stored in missing)
        result.evicted = len(gone) - len(missing)
        if not written:
            raise UserError("there is nothing to export: " + ("no chunk can be read" if chunks else "no chunk is held"))
        result.manifest = _manifest(facts, written)
        write_durably(folder / manifest.NAME, manifest.to_text(result.manifest).encode())
    return result


def _manifest(facts: Facts, written: Sequence[EpisodeFile]) -> Manifest:
    return Manifest(
        task=facts.task,
        action_size=facts.action_size,
        action_repeat=facts.action_repeat,
        source=Origin(facts.algorithm, facts.seed),
        counts=manifest.count(written, facts.action_repeat),
        files=tuple(written),
    )


def _readable(
    source: Source, part: EpisodePart, result: Exported, gone: list[Stored]
) -> Iterator[list[tuple[Stored, Chunk]]]:
    """The part's chunks, in unbroken runs; those that cannot be read end one, and are noted in `result` or `gone`."""
    run: list[tuple[Stored, Chunk]] = []
    for stored in part.chunks:
        try:
            chunk = source.chunk(stored)
            files.refuse_not_finite(chunk.rows)
            run.append((stored, chunk))
            continue
        except ChunkGoneError:
            gone.append(stored)
        except CodecError as error:
            result.damaged.append(f"{stored}: {error}")
        if run:
            yield run
        run = []
    if run:
        yield run


def _write(path: Path, run: Sequence[tuple[Stored, Chunk]], places: Sequence[int]) -> EpisodeFile:
    rows = Rows.concatenate([chunk.rows for _, chunk in run])
    content = files.pack(rows)
    write_durably(path, content)
    first, last = run[0][0], run[-1][0]
    return EpisodeFile(
        file=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        key=(*first.key.stream, first.key.episode),
        first_index=first.key.index,
        rows=len(rows),
        episode_return=files.episode_return(rows.reward),
        finished=last.is_last,
        chunks=tuple((place, stored.rows) for place, (stored, _) in zip(places, run, strict=True)),
    )


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to write into: it becomes `out` when the block ends well, and goes away when it does not."""
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} is there already: name a folder that is not")
    temporary = out.absolute().with_name(_TEMPORARY + out.absolute().name)
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        lock = claim(temporary)
        try:
            for leftover in temporary.glob("*.*"):  # of an export that was killed
                if leftover.name != LOCK_NAME:
                    leftover.unlink()
            yield temporary
            (temporary / LOCK_NAME).unlink()
            sync_folder(temporary)
            os.rename(temporary, out)
            sync_folder(temporary.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            os.close(lock)
    except InUseError as error:
        raise UserError(f"{error}: another export to {out}") from error
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
