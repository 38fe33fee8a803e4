import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from raycrp.choices import Preset, Task
from raycrp.config import Backbone
from raycrp.errors import ModelError
from raycrp.model.annotation import annotation_prompt
from raycrp.model.tokenizers import (
    add_tokens,
    build_tokenizer,
    load_tokenizer,
    load_tokenizer_dir,
    lossy_fraction,
    prepare_tokenizer,
    unk_rate,
)

SMILES = ["CC(=O)[N+]([O-])C[C@@H](N)CCl>>Br[nH]", "C1%10C%10[13C]", "F/C=C\\F"] * 5
WORDS = ["Please suggest possible reactants for the given product. I do.", "The reaction type is."]
TOKENIZER = build_tokenizer(SMILES, words=WORDS)
add_tokens(TOKENIZER, ["F5", "F10"])


def tokens_of(text):
    return TOKENIZER.convert_ids_to_tokens(TOKENIZER(text)["input_ids"])


def round_trip(text):
    return TOKENIZER.decode(TOKENIZER(text)["input_ids"], skip_special_tokens=True)


def test_special_ids_are_those_of_t5():
    special = (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, TOKENIZER.unk_token_id)
    assert special == (0, 1, 2)
    assert TOKENIZER("C")["input_ids"][-1] == 1


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("CC(=O)Cl", ["C", "C", "(", "=", "O", ")", "Cl"]),
        ("Brc1c[nH]c1", ["Br", "c", "1", "c", "[nH]", "c", "1"]),
        ("C[N+]([O-])C", ["C", "[N+]", "(", "[O-]", ")", "C"]),
        ("N[C@@H]C>>O", ["N", "[C@@H]", "C", ">>", "O"]),
        ("C%10C%10", ["C", "%10", "C", "%10"]),
        ("F/C=C\\F", ["F", "/", "C", "=", "C", "\\", "F"]),
        # A bracket atom and a ring closure that the data lack are spelled.
        ("[Xe+2]", ["[", "X", "e", "+", "2", "]"]),
        ("C%42", ["C", "%", "4", "2"]),
        # Carbon and iodine, not the words "CO" and "I".
        ("CO", ["C", "O"]),
        ("I", ["I"]),
    ],
)
def test_smiles_are_read_atom_by_atom(text, tokens):
    assert tokens_of(text) == [*tokens, "</s>"]


def test_prompts_are_read_word_by_word():
    tokens = tokens_of("Please suggest possible reactants. The reaction type is F5. CCl")
    space = "▁"
    assert tokens == [
        *("Please", "▁suggest", "▁possible", "▁reactants", ".", "▁The", "▁reaction", "▁type"),
        *("▁is", space, "F5", ".", space, "C", "Cl", "</s>"),
    ]


def test_a_reaction_type_is_found_only_where_it_stands_alone():
    assert tokens_of("CF5") == ["C", "F", "5", "</s>"]
    assert tokens_of("F10") == ["F10", "</s>"]


def test_the_annotation_prompt_is_made_of_words():
    prompt = annotation_prompt("CCO", task=Task.RETROSYNTHESIS, num_types=10)
    assert "from 0 to 9. Input: CCO" in prompt
    words = [token for token in tokens_of(prompt) if token[-1:].isalpha() and len(token) > 2]
    assert words[:6] == ["This", "▁is", "▁the", "▁retrosynthesis", "▁reaction", "▁prediction"]
    assert len(words) == 26


ATOMS = st.sampled_from(
    [
        *("C", "N", "c", "n", "Cl", "Br", "[nH]", "[C@@H]", "[C@]", "[13CH3:27]", "[Na+]"),
        *("[O-]", "[Fe+3]", "[se]", "[2H]", "[As]", "=", "#", "/", "\\", "(", ")", "1", "%10"),
        *("%99", ".", ">>", "*", "~", "$", ":", "@"),
    ]
)


@given(st.lists(ATOMS, max_size=60).map("".join))
@settings(max_examples=200, deadline=None)
def test_any_smiles_comes_back_without_unknown(text):
    assert round_trip(text) == text
    assert TOKENIZER.unk_token_id not in TOKENIZER(text)["input_ids"]


@given(st.text(alphabet=string.ascii_letters + string.digits + string.punctuation + " "))
@settings(max_examples=200, deadline=None)
def test_any_printable_ascii_text_comes_back(text):
    # Texts that name a special token are no prompts.
    if not any(special in text for special in ("<pad>", "</s>", "<unk>")):
        assert round_trip(text) == text


@given(st.lists(st.sampled_from([*" ".join(WORDS).split(), "F5.", "CO", "", "I"]), max_size=20))
@settings(max_examples=100, deadline=None)
def test_any_prompt_comes_back(words):
    assert round_trip(" ".join(words)) == " ".join(words)


def test_the_same_data_gives_the_same_tokenizer_in_any_order():
    again = build_tokenizer(reversed(SMILES), words=WORDS[::-1])
    first = build_tokenizer(SMILES, words=WORDS)
    assert again.backend_tokenizer.to_str() == first.backend_tokenizer.to_str()


def test_rare_pieces_are_spelled():
    assert "[N+]" in build_tokenizer(["C[N+]"] * 5, words=[]).get_vocab()
    assert "[N+]" not in build_tokenizer(["C[N+]"] * 4, words=[]).get_vocab()


def test_a_saved_tokenizer_loads_with_auto_tokenizer(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)
    text = "The reaction type is F5. C[C@@H](N)/C=C\\Cl"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text


def test_unk_rate_and_lossy_fraction_of_a_text_outside_ascii():
    # Two of four tokens are unknown, and one of two texts is lost.
    assert unk_rate(TOKENIZER, ["Cé→C"]) == 0.5
    assert lossy_fraction(TOKENIZER, ["CC", "Cé"]) == 0.5
    assert unk_rate(TOKENIZER, []) == lossy_fraction(TOKENIZER, []) == 0.0


def test_a_preset_reports_no_unknown():
    prepared = prepare_tokenizer(Backbone(preset=Preset.TINY), smiles=iter(SMILES), words=WORDS)
    assert prepared.report.unk_rate_after == 0
    assert prepared.report.lossy_fraction == 0
    assert prepared.report.vocabulary_size == len(prepared.tokenizer)
    assert "[C@@H]" in prepared.tokenizer.get_vocab()


def test_a_published_tokenizer_gets_the_characters_it_lacks(published_dir, tmp_path):
    backbone = Backbone(name_or_path=str(published_dir))
    texts = ["F/C=C\\CC#N", "CC"]
    before = load_tokenizer(backbone)
    # Metaspace, nine pieces, two of them unknown: "▁ F / C = C <unk> CC <unk> N"; "▁ CC".
    assert unk_rate(before, texts) == pytest.approx(2 / 12)
    assert before.decode(before(texts[0])["input_ids"], skip_special_tokens=True) != texts[0]
    prepared = prepare_tokenizer(backbone, smiles=texts, words=[])
    assert prepared.report.added == ("#", "$", "*", ">", "\\", "~")
    assert prepared.report.unk_rate_before == pytest.approx(2 / 12)
    assert prepared.report.unk_rate_after == 0
    assert prepared.report.lossy_fraction == 0
    prepared.tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer_dir(tmp_path)
    add_tokens(loaded, ["F5"])
    for text in ["F/C=C\\CC#N", "The type F5. CC\\C>>C", "The type The CC"]:
        ids = loaded(text)["input_ids"]
        assert loaded.decode(ids, skip_special_tokens=True) == text
        assert loaded.unk_token_id not in ids
    plain = "The type The CC"
    assert loaded(plain)["input_ids"] == before(plain)["input_ids"]


def test_what_is_no_tokenizer_is_one_clear_line(tmp_path):
    with pytest.raises(ModelError, match="holds no tokenizer") as caught:
        load_tokenizer_dir(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_hub_id_needs_a_commit():
    with pytest.raises(ModelError, match="give its commit as revision"):
        load_tokenizer(Backbone(name_or_path="some/model"))
