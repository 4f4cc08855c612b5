"""Feature hashing: the same bits everywhere, a unit vector for every text, and the right passage in any language."""

import hashlib
import math
import os
import subprocess
import sys
from operator import mul

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gateway.engines.hashing import DEFAULT_DIM, MAX_CHARS, MAX_DIM, HashingEngine, features
from hf_gateway.values.vectors import Vectors

TEXTS = [
    "How do I catch an exception in Python?",
    "Die Straße zum Übungsplatz führt über die alte Brücke.",
    "Ёлка стоит у окна, а ёлочные игрушки лежат в коробке.",
    "كيف أعيد تعيين كلمة المرور الخاصة بي؟",
    "मैं अपना पासवर्ड कैसे बदलूँ?",
    "机器学习是人工智能的一个分支，研究如何从数据中学习。",
    "東京タワーはﾄｳｷｮｳにある電波塔です。",
    "한국어 문장도 그대로 처리합니다.",
    "ฉันชอบกินข้าวผัดกับไข่ดาวทุกเช้า",
    "naïve cafe\u0301 ﬁne ½ x² = y² + 1",
    "👩‍💻 🎉🎉 ❤️ ✅done ₹500 𞤀𞤣𞤤𞤢𞤥 \U00016d67\U00016d63 a\u1df5\u0316",
    "?!",
    "\ud83d half an emoji",
    "the the the the the the the cat",
]


def little_endian(vectors: Vectors) -> bytes:
    data = vectors.data[:]
    if sys.byteorder == "big":
        data.byteswap()
    return data.tobytes()


def cosine(one: str, other: str, dim: int = DEFAULT_DIM) -> float:
    first, second = HashingEngine(dim).embed([one, other])
    return float(sum(map(mul, first, second)))


def nearest(query: str, texts: list[str]) -> str:
    return max(texts, key=lambda text: cosine(query, text))


@pytest.mark.parametrize(
    ("dim", "digest"),
    [
        (256, "323e85b0b06db233874fce4b2c0a36fced2ae3c05ff9458f070cf118d53cf7b6"),
        (1024, "66d9e6c78744a1d50ade8825e1a92640292244545c7d1df6c61b54446372fd3c"),
        (1000, "38291f669646053cba84d5b4618c21c75f546210b51b9b08d73ef480af34de5b"),
    ],
)
def test_vectors_are_these_exact_bits_on_every_platform_and_python(dim: int, digest: str) -> None:
    # A change of the scheme makes every stored vector useless: it may be meant, it may not go unnoticed.
    assert hashlib.sha256(little_endian(HashingEngine(dim).embed(TEXTS))).hexdigest() == digest


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_the_salt_of_pythons_own_hash_does_not_matter(seed: str) -> None:
    program = (
        "import sys\n"
        "from hf_gateway.engines.hashing import HashingEngine\n"
        "texts = sys.stdin.buffer.read().decode('utf-8', 'surrogatepass').split('\\n')\n"
        "sys.stdout.buffer.write(HashingEngine(64).embed(texts).data.tobytes())\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(TEXTS).encode("utf-8", "surrogatepass"),
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        check=True,
    )
    assert there.stdout == HashingEngine(64).embed(TEXTS).data.tobytes()


@pytest.mark.parametrize("dim", [1, 2, 3, 256, 1000, DEFAULT_DIM, MAX_DIM])
def test_every_row_has_length_one_in_any_dimension(dim: int) -> None:
    vectors = HashingEngine(dim).embed(TEXTS)
    assert (len(vectors), vectors.dim) == (len(TEXTS), dim)
    assert vectors.norms() == pytest.approx([1.0] * len(TEXTS), abs=1e-6)


@pytest.mark.parametrize("dim", [0, -1, MAX_DIM + 1])
def test_a_dimension_out_of_range_is_refused_with_the_range(dim: int) -> None:
    with pytest.raises(ValueError, match=rf"between 1 and 65536, not {dim}"):
        HashingEngine(dim)


def test_the_default_dimension_is_used_when_none_is_given() -> None:
    assert HashingEngine().embed(["text"]).dim == DEFAULT_DIM


def test_no_texts_give_no_rows() -> None:
    assert len(HashingEngine(8).embed([])) == 0


def test_a_text_embeds_the_same_whatever_its_batch_and_place() -> None:
    engine = HashingEngine(128)
    together = engine.embed(TEXTS).tolist()
    assert engine.embed(TEXTS[::-1]).tolist() == together[::-1]
    assert [engine.embed([text])[0] for text in TEXTS] == together


@pytest.mark.parametrize("blank", ["", " ", "\n\t\r ", "\u00a0\u2003\u3000"])
def test_a_blank_text_is_refused_by_its_index(blank: str) -> None:
    with pytest.raises(ValueError, match="text 1 is empty or white space"):
        HashingEngine().embed(["something", blank])


@given(st.text(st.characters(exclude_categories=[])), st.integers(1, 300))
@settings(max_examples=300, deadline=None)
def test_any_text_with_a_visible_character_gives_a_finite_unit_vector(text: str, dim: int) -> None:
    if not text.strip():
        text += "x"
    vectors = HashingEngine(dim).embed([text])
    assert (len(vectors), vectors.dim) == (1, dim)
    assert vectors.fault() is None
    assert math.isclose(vectors.norms()[0], 1.0, abs_tol=1e-6)


@given(st.text(), st.text())
@settings(deadline=None)
def test_the_features_of_a_text_are_those_of_its_words_and_64_bits_wide(one: str, other: str) -> None:
    words = features(f"left {one} word") + features(f"word {other} right")
    assert features(f"left {one} word word {other} right") == words
    assert all(0 <= feature < 1 << 64 for feature in words)


@pytest.mark.parametrize(
    "text",
    [
        "🎉",
        "👩‍💻",
        "❤️",
        "?!",
        "...",
        "=",
        "\u200b",
        "\u00ad",
        "\x00",
        "\ud800",
        "\udfff\ud800",
        "\ue000",
        "\u0301",
        "ก",
        "字",
        "a",
    ],
)
def test_a_text_of_one_emoji_mark_or_control_has_a_vector(text: str) -> None:
    assert HashingEngine(64).embed([text]).norms() == pytest.approx([1.0], abs=1e-6)


def test_different_emoji_are_told_apart() -> None:
    assert cosine("🎉", "🎉🎉") == pytest.approx(1.0)
    assert cosine("🎉", "🐍") < 0.5


def test_a_text_whose_signs_cancel_out_still_has_a_vector() -> None:
    engine = HashingEngine(1)
    plus = next(word for word in "abcdefgh" if engine.embed([word])[0] == [1.0])
    minus = next(word for word in "abcdefgh" if engine.embed([word])[0] == [-1.0])
    assert engine.embed([f"{plus} {minus}"])[0] == [1.0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CAFÉ", "cafe\u0301"),
        ("Straße", "STRASSE"),
        ("ﬁne print", "fine print"),
        ("ｈｅｌｌｏ", "hello"),
        ("ﾄｳｷｮｳ", "トウキョウ"),
        ("한국어", "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165"),
        ("a\u0323\u0307", "a\u0307\u0323"),
        ("co\u00adoperate", "cooperate"),
        ("\u2067سلام\u2069", "سلام"),
        ("❤️", "❤"),
        ("done✅", "✅ done"),
        ("₹500", "₹ 500"),
        ("try_except", "try except"),
        ("one, two;three", "three (one) two!"),
    ],
)
def test_spellings_of_the_same_text_have_the_same_vector(one: str, other: str) -> None:
    assert HashingEngine().embed([one]) == HashingEngine().embed([other])


RETRIEVAL: dict[str, tuple[str, list[str]]] = {
    "English": (
        "how can I get my money back",
        [
            "Refunds: we return your money within 14 days of purchase.",
            "Shipping takes three to five working days in Europe.",
            "How to change the password of your account.",
            "Our offices are open from nine to five.",
            "You can get in touch with the support team by mail.",
        ],
    ),
    "Chinese": (
        "怎么修改登录密码",
        [
            "如需更改密码，请打开设置页面，然后点击修改密码。",
            "订单通常在三到五个工作日内送达。",
            "退款将在十四天内退回到您的银行账户。",
            "我们的办公室位于上海市中心。",
            "客服团队每天上午九点到下午六点在线。",
        ],
    ),
    "Japanese": (
        "パスワードを忘れた",
        [
            "パスワードをお忘れの場合は、再設定ページを開いてください。",
            "商品は三日から五日でお届けします。",
            "返金は十四日以内に行われます。",
            "事務所は東京駅の近くにあります。",
            "お問い合わせは午前九時から受け付けます。",
        ],
    ),
    "Thai": (
        "ลืมรหัสผ่านต้องทำอย่างไร",
        [
            "หากคุณลืมรหัสผ่าน ให้กดปุ่มรีเซ็ตรหัสผ่านในหน้าเข้าสู่ระบบ",
            "สินค้าจะจัดส่งภายในสามถึงห้าวันทำการ",
            "เราจะคืนเงินให้ภายในสิบสี่วัน",
            "สำนักงานของเราตั้งอยู่ใจกลางกรุงเทพ",
            "ทีมบริการลูกค้าเปิดทำการทุกวัน",
        ],
    ),
    "German": (
        "Wie kündige ich meinen Vertrag?",
        [
            "Kündigung: Verträge lassen sich zum Monatsende schriftlich kündigen.",
            "Die Lieferung dauert drei bis fünf Werktage.",
            "So ändern Sie Ihr Passwort in den Einstellungen.",
            "Unser Büro liegt mitten in Berlin.",
            "Ich und mein Team: wie wir arbeiten.",
        ],
    ),
    "Arabic": (
        "كيف أغير كلمة السر",
        [
            "لتغيير كلمة السر افتح صفحة الإعدادات واضغط على زر التغيير.",
            "يستغرق التوصيل من ثلاثة إلى خمسة أيام عمل.",
            "نعيد المبلغ خلال أربعة عشر يوما من تاريخ الشراء.",
            "يقع مكتبنا في وسط القاهرة.",
            "فريق الدعم متاح كل يوم من التاسعة صباحا.",
        ],
    ),
}
"""Language → a question and five texts, the answer first."""


@pytest.mark.parametrize("language", RETRIEVAL)
def test_a_question_finds_its_answer_among_five(language: str) -> None:
    query, texts = RETRIEVAL[language]
    assert nearest(query, texts[::-1]) == texts[0]


@pytest.mark.parametrize(
    ("query", "meant", "other"),
    [
        ("embarassment", "embarrassment", "embankment"),
        ("authentification", "authentication", "notification"),
        ("categorising", "categorization", "advertising"),
        ("Fahrradversicherung", "Versicherung für das Fahrrad", "Fahrkarte und Verspätung"),
        ("книгами", "книга", "ногами"),
    ],
)
def test_a_typo_or_inflection_still_finds_its_word(query: str, meant: str, other: str) -> None:
    assert cosine(query, meant) > max(0.2, cosine(query, other))


def test_a_word_said_often_does_not_drown_the_others() -> None:
    assert cosine("the " * 30 + "cat", "cat") > 0.3


def test_texts_without_a_common_word_are_almost_orthogonal() -> None:
    assert abs(cosine("quarterly revenue forecast", "bicycle chain grease")) < 0.15


HOSTILE = {
    "ten million letters": lambda: "x" * 10_000_000,
    "a word of a million letters": lambda: "ab" * 500_000,
    "a million marks on one letter": lambda: "a" + "\u0301\u0316" * 500_000,
    "a million ideographs": lambda: "".join(chr(0x4E00 + i * 7919 % 20000) for i in range(1_000_000)),
    "a character that stands for eighteen": lambda: "\ufdfa" * 200_000,
    "every code point there is": lambda: "".join(map(chr, range(0x110000))),
    "lone surrogates": lambda: "\ud800\udc00\udfff" * 100_000,
    "ten million spaces and a letter": lambda: " " * 10_000_000 + "x",
    "ten million full stops": lambda: "." * 10_000_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_text_gives_a_unit_vector(kind: str) -> None:
    assert HashingEngine(64).embed([HOSTILE[kind]()]).norms() == pytest.approx([1.0], abs=1e-6)


def test_characters_past_the_bound_do_not_count() -> None:
    start = "word " * (MAX_CHARS // 5 + 1)
    assert features(start + "ignored") == features("  " + start)
