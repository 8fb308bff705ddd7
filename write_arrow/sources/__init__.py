"""The data sets that can be written: a file for each family, which states them in its SOURCES."""

from write_arrow.machine.source import Source
from write_arrow.sources import (
    captions,
    emoji,
    emoji_foil,
    emoji_gqa,
    emoji_groups,
    emoji_guess,
    emoji_languages,
    emoji_mlt,
    emoji_nlvr2,
    emoji_pointing,
    emoji_refer,
    emoji_scenes,
    emoji_snli_ve,
    emoji_translations,
    emoji_vcr,
    emoji_visdial,
    flickr_entities,
    foil,
    gqa,
    guesswhat,
    imagenet,
    karpathy,
    mlt,
    multi30k,
    nlvr2,
    pairs,
    refer,
    retrieval,
    snli_ve,
    table,
    text,
    vcr,
    vg,
    vgqa,
    visdial,
    visual7w,
    vqav2,
)

# In the order in which --help lists them.
_FAMILIES = (
    *(karpathy, retrieval, vg, pairs, vqav2, vgqa, gqa, nlvr2, snli_ve, foil, visdial),  # published data sets
    *(multi30k, mlt),  # published data sets in several languages
    *(refer, flickr_entities, visual7w, guesswhat, vcr),  # published data sets with boxes
    *(captions, table, text, imagenet),  # data of your own
    *(emoji, emoji_groups, emoji_nlvr2, emoji_scenes, emoji_gqa, emoji_snli_ve, emoji_foil, emoji_visdial),  # embedded
    *(emoji_languages, emoji_translations, emoji_mlt),  # embedded, in several languages
    *(emoji_refer, emoji_pointing, emoji_guess, emoji_vcr),  # embedded, with boxes
)


def _all_sources() -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for family in _FAMILIES:
        repeated = sources.keys() & family.SOURCES.keys()
        assert not repeated, f"{family.__name__} states {repeated} again"
        sources |= family.SOURCES
    return sources


SOURCES = _all_sources()
