"""All corpora by name."""

from __future__ import annotations

import difflib

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.corpora.entities import (
    bc2gm,
    bc4chemd,
    bc5cdr,
    ebm_pico,
    i2b2_2010,
    jnlpba,
    ncbi_disease,
    species,
)
from electramed_jax.finetune.corpora.questions import squad_files
from electramed_jax.finetune.corpora.spec.corpus import Corpus
from electramed_jax.finetune.corpora.texts import bioasq_yesno, hoc, pubmedqa, tables_of_blue

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        bc5cdr.CHEMICAL,
        bc5cdr.DISEASE,
        ncbi_disease.CORPUS,
        bc2gm.CORPUS,
        jnlpba.TYPED,
        jnlpba.MERGED,
        species.LINNAEUS,
        species.S800,
        bc4chemd.CORPUS,
        ebm_pico.CORPUS,
        i2b2_2010.CORPUS,
        *tables_of_blue.CORPORA,
        hoc.CORPUS,
        pubmedqa.CONTEXT,
        pubmedqa.LONG_ANSWER,
        bioasq_yesno.CORPUS,
        *squad_files.CORPORA,
    )
}


def find_corpus(name: str) -> Corpus:
    """Returns the corpus of this name.

    Raises:
      UserError: there is none; suggests the nearest name.
    """
    if name not in CORPORA:
        near = difflib.get_close_matches(name, CORPORA, 1)
        hint = f"did you mean {near[0]}?" if near else "electramed corpora lists them"
        raise UserError(f"{name}: no such corpus; {hint}")
    return CORPORA[name]
