"""Sentences in four languages, beside sentences that were written by hand."""

import pytest

from write_arrow.sources.emoji_grammar import (
    COLORS,
    HIDDEN,
    LANGUAGES,
    NOUNS,
    TEMPLATES,
    Description,
    Mention,
    sentence,
)
from write_arrow.sources.emoji_scenes import NOUNS as SHOWN

DOGS, COW, EGG = Mention("dog", 2, "small"), Mention("cow", 1, "large"), Mention("egg")
BEARS, HORSES = Mention("bear", 3, "large", several=True), Mention("horse", 4)


@pytest.mark.parametrize(
    ("told", "english", "german", "french", "czech"),
    [
        (
            Description("see", (DOGS, COW, EGG), "blue"),
            "We see two small dogs, a large cow and an egg on a blue background.",
            "Wir sehen zwei kleine Hunde, eine große Kuh und ein Ei vor blauem Hintergrund.",
            "Nous voyons deux petits chiens, une grande vache et un œuf sur un fond bleu.",
            "Vidíme dva malé psy, velkou krávu a vejce na modrém pozadí.",
        ),
        (
            Description("see", (BEARS, Mention("monkey", 1, "small"))),
            "We see several large bears and a small monkey on a red background.",
            "Wir sehen mehrere große Bären und einen kleinen Affen vor rotem Hintergrund.",
            "Nous voyons plusieurs grands ours et un petit singe sur un fond rouge.",
            "Vidíme několik velkých medvědů a malou opici na červeném pozadí.",
        ),
        (
            Description("shown", (BEARS, EGG), "gray"),
            "On a gray background there are several large bears and an egg.",
            "Vor grauem Hintergrund sind mehrere große Bären und ein Ei zu sehen.",
            "Sur un fond gris, il y a plusieurs grands ours et un œuf.",
            "Na šedém pozadí je několik velkých medvědů a vejce.",
        ),
        (
            Description("shown", (Mention("penguin", 2, "large"), Mention("tomato", 2, "small")), "green"),
            "On a green background there are two large penguins and two small tomatoes.",
            "Vor grünem Hintergrund sind zwei große Pinguine und zwei kleine Tomaten zu sehen.",
            "Sur un fond vert, il y a deux grands pingouins et deux petites tomates.",
            "Na zeleném pozadí jsou dva velcí tučňáci a dvě malá rajčata.",
        ),
        (
            Description("picture", (DOGS, Mention("owl")), "purple"),
            "This is a picture with two small dogs and an owl on a purple background.",
            "Das ist ein Bild mit zwei kleinen Hunden und einer Eule vor violettem Hintergrund.",
            "C'est une image avec deux petits chiens et une chouette sur un fond violet.",
            "To je obrázek se dvěma malými psy a sovou na fialovém pozadí.",
        ),
        (
            Description("picture", (Mention("owl"), BEARS), "yellow"),
            "This is a picture with an owl and several large bears on a yellow background.",
            "Das ist ein Bild mit einer Eule und mehreren großen Bären vor gelbem Hintergrund.",
            "C'est une image avec une chouette et plusieurs grands ours sur un fond jaune.",
            "To je obrázek se sovou a několika velkými medvědy na žlutém pozadí.",
        ),
        (
            Description("places", (COW, Mention("key", 1, "small")), places=(0, 3)),
            "In the picture, a large cow is at the top left and a small key is at the bottom right.",
            "Auf dem Bild ist eine große Kuh oben links und ein kleiner Schlüssel unten rechts.",
            "Sur l'image, une grande vache est en haut à gauche et une petite clé en bas à droite.",
            "Na obrázku je velká kráva vlevo nahoře a malý klíč vpravo dole.",
        ),
        (
            Description("beside", (Mention("cat"), Mention("bear", 1, "small")), places=(1, 1), side="below"),
            "At the top right there is a cat, and below it we see a small bear.",
            "Oben rechts ist eine Katze, und unter ihr sehen wir einen kleinen Bären.",
            "En haut à droite, il y a un chat et, au-dessous, nous voyons un petit ours.",
            "Vpravo nahoře je kočka a pod ní vidíme malého medvěda.",
        ),
        (
            Description("beside", (EGG, Mention("house")), places=(2, 2), side="right of"),
            "At the bottom left there is an egg, and to the right of it we see a house.",
            "Unten links ist ein Ei, und rechts von ihm sehen wir ein Haus.",
            "En bas à gauche, il y a un œuf et, à sa droite, nous voyons une maison.",
            "Vlevo dole je vejce a vpravo od něj vidíme dům.",
        ),
        (
            Description("relation", (DOGS, COW), side="left of"),
            "In the picture, the large cow is to the left of one of the two small dogs.",
            "Auf dem Bild ist die große Kuh links von einem der zwei kleinen Hunde.",
            "Sur l'image, la grande vache est à gauche de l'un des deux petits chiens.",
            "Na obrázku je velká kráva vlevo od jednoho ze dvou malých psů.",
        ),
        (
            Description("relation", (Mention("dog"), HORSES), side="above"),
            "In the picture, one of the four horses is above the dog.",
            "Auf dem Bild ist eines der vier Pferde über dem Hund.",
            "Sur l'image, l'un des quatre chevaux est au-dessus du chien.",
            "Na obrázku je jeden ze čtyř koní nad psem.",
        ),
        (
            Description("neighbour", (Mention("airplane", 1, "small"), COW), side="right of"),
            "To the right of the small airplane we see a large cow.",
            "Rechts vom kleinen Flugzeug sehen wir eine große Kuh.",
            "À droite du petit avion, nous voyons une grande vache.",
            "Vpravo od malého letadla vidíme velkou krávu.",
        ),
        (
            Description("neighbour", (Mention("airplane"), Mention("snail")), side="below"),
            "Below the airplane we see a snail.",
            "Unter dem Flugzeug sehen wir eine Schnecke.",
            "Au-dessous de l'avion, nous voyons un escargot.",
            "Pod letadlem vidíme šneka.",
        ),
        (
            Description("more", (Mention("egg", 3), Mention("bear", 1, "small"))),
            "In the picture there are more eggs than small bears.",
            "Auf dem Bild sind mehr Eier als kleine Bären zu sehen.",
            "Sur l'image, il y a plus d'œufs que de petits ours.",
            "Na obrázku je více vajec než malých medvědů.",
        ),
        (
            Description("relation", (Mention(HIDDEN, 2), Mention(HIDDEN, 1, "small")), side="below"),
            "In the picture, the small thing is below one of the two things.",
            "Auf dem Bild ist das kleine Ding unter einem der zwei Dinge.",
            "Sur l'image, la petite chose est au-dessous de l'une des deux choses.",
            "Na obrázku je malá věc pod jednou ze dvou věcí.",
        ),
    ],
    ids=lambda value: value.template if isinstance(value, Description) else "",
)
def test_sentences_are_those_written_by_hand(told, english, german, french, czech):
    assert [sentence(told, language) for language in LANGUAGES] == [english, german, french, czech]


def test_every_noun_has_all_its_forms():
    assert set(NOUNS) == {*SHOWN, HIDDEN}
    for row in NOUNS.values():
        assert all(row.values()), row["en"]
        assert None not in row, row["en"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_language_tells_different_descriptions_differently(template):
    described = [
        Description(template, (Mention(first, number, size), Mention(second)), color)
        for first, second in (("dog", "cow"), ("dog", "cat"), ("horse", "cow"))
        for number, size in ((1, "small"), (2, "large"), (3, ""))
        for color in (COLORS[:2] if "{color}" in TEMPLATES[template]["en"] else COLORS[:1])
        if number == 1 or template not in ("places", "beside")
    ]
    told = len(described) if template != "more" else 9
    for language in LANGUAGES:
        assert len({sentence(one, language) for one in described}) == told
