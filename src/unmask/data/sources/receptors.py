"""Real T-cell receptors, from VDJdb as the package immunewatch-clustcr carries it: the six loops of paired chains.

VDJdb names the gene of each chain and its CDR3 with the residues around it; CDR1 and CDR2 are the gene's, from tidytcells.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping

from unmask.data.sources import packages
from unmask.data.sources.packages import Package

VDJDB = Package(
    tool="pip",
    name="immunewatch-clustcr",
    version="1.0.1",
    file="immunewatch_clustcr-1.0.1-py3-none-any.whl",
    sha256="9e2abe80e2b38d6ce4391e31fa2b93437d811bc6566b954eff3f7d1130f08022",
)
GENES = Package(
    tool="pip",
    name="tidytcells",
    version="2.2.1",
    file="tidytcells-2.2.1-py3-none-any.whl",
    sha256="27a672ba07af306b2be5e8fcc307cf0a9ea7dcf603b1e33868d041b90d0f44c4",
)

ALPHABET = "|ACDEFGHIKLMNPQRSTVWY"
"""Symbols of a receptor."""

Genes = Mapping[str, Mapping[str, str]]


def receptors() -> list[str]:
    """Human receptors of which both chains are known, each once, as ``CDR1A|CDR2A|CDR3A|CDR1B|CDR2B|CDR3B``, sorted."""
    table = packages.read(packages.bring(VDJDB), "imw_clustcr/input/vdjdb/vdjdb_full.txt").decode()
    place = "tidytcells/_resources/homosapiens_tr_aa_sequences.json"
    genes = json.loads(packages.read(packages.bring(GENES), place))
    rows = csv.DictReader(io.StringIO(table), delimiter="\t")
    found = {receptor(row, genes) for row in rows if row["species"] == "HomoSapiens"}
    return sorted(text for text in found if text is not None)


def receptor(row: Mapping[str, str], genes: Genes) -> str | None:
    """One row's six loops; None where one is not known or has other letters."""
    loops = [loop for chain in ("alpha", "beta") for loop in _loops(row, chain, genes)]
    text = "|".join(loops)
    return text if all(loops) and not set(text) - set(ALPHABET) else None


def _loops(row: Mapping[str, str], chain: str, genes: Genes) -> tuple[str, str, str]:
    """The three loops of a chain, empty where not known."""
    gene = genes.get(row[f"v.{chain}"], {})
    return gene.get("CDR1-IMGT", ""), gene.get("CDR2-IMGT", ""), row[f"cdr3.{chain}"]
