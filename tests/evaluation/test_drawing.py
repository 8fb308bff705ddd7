"""Boxes drawn into a picture, and sheets of examples."""

from PIL import Image

from vlc.evaluation.drawing import _COLOURS, sheet, with_boxes


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def test_boxes_are_drawn_where_they_lie_the_best_on_top():
    picture = Image.new("RGB", (200, 100), "black")
    drawn = with_boxes(picture, [(50, 40, 150, 90), (50, 40, 150, 90), (0, 0, 200, 100)], ["dog 0.9", "dog 0.1", "all"])
    assert picture.getextrema() == ((0, 0),) * 3, "the picture given stays as it is"
    for corner in ((50, 89), (149, 89), (149, 40)):
        assert drawn.getpixel(corner) == _rgb(_COLOURS[0])
    assert drawn.getpixel((199, 99)) == _rgb(_COLOURS[2])
    assert drawn.getpixel((100, 60)) == (0, 0, 0)


def test_a_box_outside_and_a_label_at_the_edge_do_not_fail():
    drawn = with_boxes(Image.new("L", (8, 8)), [(-5, -5, 30, 30), (0, 0, 0.5, 0.5)], ["a very long label", ""])
    assert drawn.size == (8, 8)
    assert drawn.mode == "RGB"


def test_a_sheet_shows_pictures_and_wraps_their_texts():
    wide, tall = Image.new("RGB", (400, 10), "red"), Image.new("L", (10, 400))
    drawn = sheet([([wide, tall], "what is this?\nanswer: " + "word " * 30), ([tall], "")] + [([wide], "x")] * 3)
    assert drawn.width == 4 * 260
    assert (255, 0, 0) in {colour for _, colour in drawn.getcolors(2**20)}
