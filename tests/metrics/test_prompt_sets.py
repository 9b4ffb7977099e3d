"""The papers' prompts as data: as many as are printed, and files of one's own."""

import pytest

from longvid.metrics.prompt_sets import load_prompt_set, prompt_sets


@pytest.mark.parametrize(
    ("name", "number", "printed", "some"),
    [
        ("harivo", 100, "100 of 100", ("A white man is yawning.", "The cat is transforming into a human.")),
        ("streaming-t2v", 10, "10 of 50", ("Men walking in the rain.",)),
        ("streaming-t2v-figures", 15, "15 of 15", ("A beagle reading a paper",)),
        ("ucf-101", 101, "1 of 101", ("Hula Hoop", "Apply Eye Makeup", "Yo Yo")),
    ],
)
def test_each_set_has_as_many_prompts_as_its_head_says_and_names_its_source(name, number, printed, some):
    prompts = load_prompt_set(name)
    assert len(prompts.prompts) == number
    assert prompts.printed == printed
    assert set(some) <= set(prompts.prompts)
    assert prompts.title and prompts.source


def test_these_are_all_the_sets():
    assert set(prompt_sets()) == {"harivo", "streaming-t2v", "streaming-t2v-figures", "ucf-101"}


def test_a_text_file_is_a_set_without_its_comments_and_empty_lines(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("# title: My own\n\na red circle\n  a blue square  \n", encoding="utf-8")
    prompts = load_prompt_set(file)
    assert (prompts.name, prompts.title) == ("mine", "My own")
    assert prompts.prompts == ("a red circle", "a blue square")


def test_a_class_index_gives_the_class_names_as_words(tmp_path):
    file = tmp_path / "classInd.txt"
    file.write_text("1 ApplyEyeMakeup\r\n2 Archery\r\n3 YoYo\r\n")
    assert load_prompt_set(file).prompts == ("Apply Eye Makeup", "Archery", "Yo Yo")
    file.write_text("1 ApplyEyeMakeup\n2 red circles\n")
    assert load_prompt_set(file).prompts == ("1 ApplyEyeMakeup", "2 red circles")


def test_what_is_no_set_is_an_error_that_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'harivo'"):
        load_prompt_set("harvio")
    with pytest.raises(ValueError, match="a .txt file"):
        load_prompt_set(tmp_path / "nothing.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="no prompts"):
        load_prompt_set(tmp_path / "empty.txt")
    (tmp_path / "twice.txt").write_text("a\nb\na\n")
    with pytest.raises(ValueError, match="'a' twice"):
        load_prompt_set(tmp_path / "twice.txt")
