"""`replay`: a sample again, from what its manifest says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from unmask.base.types import Choice, Denoiser, Result, Selector, TokenSource, View
from unmask.denoisers import check_tokens, denoiser_name
from unmask.engine.sampling import checksum, sampled
from unmask.engine.searching import backtrack, best_drawn, judged, search
from unmask.orders.described import made
from unmask.orders.samplers import SOURCES


def replay(
    denoiser: Denoiser,
    manifest: Mapping[str, Any],
    tokens: Tensor | None = None,
    *,
    selector: Selector | Callable[[View], Choice] | None = None,
    source: TokenSource | None = None,
    proposal: Denoiser | None = None,
) -> Result:
    """The result of `sample` that a manifest (``result.manifest``, or its JSON) tells of, sampled again bit for bit.

    ``tokens`` is where it started; the manifest knows that itself where all was masked. So are ``selector`` and
    ``source`` where they are functions of one's own, and the ``proposal`` that `best_of` drew from. Of a search it is what
    was found, the best of each sequence. ValueError where something is missing or another than it was: the denoiser by its
    name, the start, and in the end the tokens, which change with versions and machines of networks.
    """
    _check_name(denoiser, manifest)
    start = _start(denoiser, manifest, tokens)
    chosen = _selector(denoiser, manifest) if selector is None else selector
    took = SOURCES.get(manifest["source"]) if source is None else source
    if took is None:
        raise ValueError(f"the symbols came from '{manifest['source']}', which is no data; expected source=")
    order_ids, item_ids = (_ids(manifest[name], start) for name in ("order_ids", "item_ids"))
    ids, seed = (order_ids, item_ids), _seed(manifest)
    if "search" in manifest:
        found = _searched(denoiser, start, chosen, manifest["search"], seed, ids, proposal)
    else:
        found = sampled(denoiser, start, chosen, seed, took, manifest["substeps"], ids)
    if found.manifest["tokens"] != manifest["tokens"]:
        now = ", ".join(f"{key} {found.manifest[key]}" for key in ("unmask", "torch", "device"))
        then = ", ".join(f"{key} {manifest[key]}" for key in ("unmask", "torch", "device"))
        raise ValueError(f"the tokens are others than the manifest's: {now}; expected what was there, {then}")
    return found


def _searched(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: Selector | Callable[[View], Choice],
    record: Mapping[str, Any],
    seed: int,
    ids: tuple[Tensor | None, Tensor | None],
    proposal: Denoiser | None,
) -> Result:
    """The fillings that a manifest's ``search`` tells of, found again; ValueError without its proposal, or for another."""
    name, wanted = None if proposal is None else denoiser_name(proposal), record.get("proposal")
    if name != wanted:
        drawn = f"symbols were drawn from {wanted or 'the denoiser'}"
        raise ValueError(f"{drawn}; expected proposal={wanted}, got {name}")
    if "beam" in record:
        settings = {"width": record["beam"], "finish": record.get("finish", True)}
        found = search(denoiser, tokens, selector, order_ids=ids[0], **settings)
    elif "backtrack" in record:
        settings = {"count": record["backtrack"], "finish": record["finish"]}
        found = backtrack(denoiser, tokens, selector, order_ids=ids[0], **settings)
    else:
        found = best_drawn(denoiser, tokens, selector, record["best_of"], seed, ids, proposal)
    if "judge" in record:
        if record["judge"] is None:
            raise ValueError("the order that judged is no data; expected one of `unmask.orders`")
        found = judged(denoiser, tokens, found, made(record["judge"], denoiser), order_ids=ids[0])
    return found.told(record.get("told", 1))


def _check_name(denoiser: Denoiser, manifest: Mapping[str, Any]) -> None:
    missing = [name for name in ("selector_made_by", "tokens", "start") if name not in manifest]
    if missing:
        raise ValueError(
            f"the manifest has no '{missing[0]}'; expected one that this version of sample wrote"
        )
    if denoiser_name(denoiser) != manifest["denoiser"]:
        raise ValueError(
            f"got the denoiser {denoiser_name(denoiser)}; expected {manifest['denoiser']}, as in the manifest"
        )


def _start(denoiser: Denoiser, manifest: Mapping[str, Any], tokens: Tensor | None) -> Tensor:
    """The tokens before the first step, checked."""
    if tokens is None and manifest["start"] is None:
        return torch.full(tuple(manifest["shape"]), denoiser.mask_id, device=manifest["device"])
    if tokens is None:
        raise ValueError("the sample had a prompt, which the manifest does not hold; expected tokens=")
    check_tokens(tokens, denoiser, masks=True)
    hidden = bool((tokens == denoiser.mask_id).all()) and list(tokens.shape) == manifest["shape"]
    if (None if hidden else checksum(tokens)) != manifest["start"]:
        raise ValueError("tokens are not where the sample started; expected the tokens that were given to it")
    return tokens


def _selector(denoiser: Denoiser, manifest: Mapping[str, Any]) -> Selector:
    """The selector, made again; ValueError where it is no data."""
    if manifest["selector_made_by"] is None:
        raise ValueError(
            f"the order '{manifest['selector']}' is no data; expected selector=, the one that was used"
        )
    found = made(manifest["selector_made_by"], denoiser)
    if not isinstance(found, Selector):
        raise ValueError(f"'selector_made_by' makes {type(found).__name__}; expected a selector")
    return found


def _seed(manifest: Mapping[str, Any]) -> int:
    """The seed of the private noise; the command line notes that of each batch, which is one."""
    seeds = set(manifest.get("batch_seeds", [manifest["seed"]]))
    if len(seeds) != 1:
        raise ValueError(f"the batches had {len(seeds)} seeds; expected one")
    return int(seeds.pop())


def _ids(ids: list[int] | None, tokens: Tensor) -> Tensor | None:
    return None if ids is None else torch.tensor(ids, device=tokens.device)
