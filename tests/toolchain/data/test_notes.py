"""Is oddity in the data said, with rows to look at, and is nothing said about sound data?"""

import numpy as np

from toolchain.data.examples import Examples
from toolchain.data.notes import notes_on

ROWS = {"train": 40, "validation": 12, "test": 8}


def sound(columns: int = 3) -> dict[str, Examples]:
    generator = np.random.default_rng(0)
    return {
        name: Examples({"input": generator.normal(size=(rows, columns)).astype(np.float32)}, np.arange(rows) % 2)
        for name, rows in ROWS.items()
    }


def test_sound_data_needs_no_note() -> None:
    assert notes_on(sound(), ("a", "b")) == ()


def test_leaks_are_said_with_their_rows() -> None:
    splits = sound()
    splits["test"].inputs["input"][5] = splits["train"].inputs["input"][17]
    splits["test"].inputs["input"][6] = splits["validation"].inputs["input"][2]
    splits["validation"].inputs["input"][9] = splits["train"].inputs["input"][3]
    assert notes_on(splits, ("a", "b")) == (
        "1 distinct validation examples also occur in training data: validation row 9 = train row 3",
        "2 distinct test examples also occur in training or validation data: "
        "test row 5 = train row 17, test row 6 = validation row 2",
    )


def test_a_repeat_within_one_split_leaks_nothing() -> None:
    splits = sound()
    splits["test"].inputs["input"][5] = splits["test"].inputs["input"][2]
    assert notes_on(splits, ("a", "b")) == ()


def test_only_the_first_leaks_are_shown() -> None:
    splits = sound()
    splits["test"].inputs["input"][:] = splits["train"].inputs["input"][:8]
    (note,) = notes_on(splits, ("a", "b"))
    assert note.startswith("8 distinct test examples")
    assert note.count("=") == 3
    assert note.endswith(", ...")


def test_a_class_without_examples_is_said() -> None:
    splits = sound()
    splits["test"].targets[:] = 0
    assert notes_on(splits, ("a", "b")) == ("split 'test' has no example of class b",)


def test_imbalance_is_said_from_ten_to_one() -> None:
    splits = sound()
    for rare, said in ((4, False), (3, True)):  # 36 to 4 is nine times, 37 to 3 more than twelve
        splits["train"].targets[:] = np.arange(40) < rare
        notes = notes_on(splits, ("no", "yes"))
        assert bool(notes) == said
    assert notes[0].startswith("split 'train' has 37 examples of class no but 3 of yes: accuracy hides the rarer one")


def test_dead_columns_of_a_table_are_said() -> None:
    splits = sound()
    splits["train"].inputs["input"][:, 1] = 7
    (note,) = notes_on(splits, ())
    assert note.startswith("input 'input' has 1 columns that never change in training data (1)")


def test_dead_pixels_of_images_are_no_news() -> None:
    generator = np.random.default_rng(0)
    splits = {name: Examples({"input": generator.normal(size=(n, 1, 4, 4))}, np.arange(n) % 2) for name, n in ROWS.items()}
    splits["train"].inputs["input"][:, 0, 0, 0] = 0
    assert notes_on(splits, ("a", "b")) == ()
