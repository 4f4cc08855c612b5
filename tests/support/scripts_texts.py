"""A hundred texts of a dozen scripts, from one word to more than a small model reads."""

SENTENCES = (
    "The ferry to the island leaves at noon, unless the wind is too strong.",
    "Größere Änderungen müssen übermorgen früh schriftlich bestätigt werden.",
    "L'été, les élèves préfèrent les cours à l'ombre des marronniers.",
    "Где находится ближайшая библиотека и когда она открывается?",
    "Η βιβλιοθήκη ανοίγει στις εννέα το πρωί και κλείνει το βράδυ.",
    "متى تفتح المكتبة أبوابها في الصباح وأين تقع؟",
    "מתי נפתחת הספרייה בבוקר והיכן היא נמצאת?",
    "पुस्तकालय सुबह नौ बजे खुलता है और शाम को बंद होता है।",
    "ห้องสมุดเปิดเวลาเก้าโมงเช้าและปิดตอนเย็น",
    "图书馆早上九点开门,晚上八点关门。",
    "図書館は朝九時に開き、夜八時に閉まります。",
    "도서관은 아침 아홉 시에 문을 열고 저녁에 닫습니다.",
    "for (let i = 0; i < rows.length; i++) { total += rows[i].price * 1.19; } // €",
    "https://example.org/search?q=blue+whale&page=2#results 🐋 🙂 ½ ≠ ∞",
)


def hundred_texts() -> list[str]:
    """Return the texts, each once."""
    single = list(SENTENCES)
    words = [word for sentence in SENTENCES for word in sentence.split()[:2]]
    pairs = [f"{one} {other}" for one, other in zip(SENTENCES, SENTENCES[5:] + SENTENCES[:5], strict=True)]
    long = [" ".join([sentence] * times) for times, count in ((3, 10), (40, 2)) for sentence in SENTENCES[:count]]
    found = list(dict.fromkeys([*single, *pairs, *long, *words, *(f"Item {number}" for number in range(60))]))[:100]
    assert len(found) == 100
    return found
