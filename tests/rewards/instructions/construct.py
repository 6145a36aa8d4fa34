"""An answer that follows a row's instructions, written by rule where they can be met together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FILLERS = ("we go on", "it is so", "all of us see it", "they ran by", "my cup", "you do")
IN_LANGUAGE = {
    "ar": "هذه رسالة قصيرة أكتبها إلى صديقي في المدينة.",
    "bg": "Това е кратко писмо до моя приятел в града.",
    "bn": "এটি শহরে আমার বন্ধুর কাছে একটি ছোট চিঠি।",
    "de": "Das ist ein kurzer Brief an meinen Freund in der Stadt.",
    "fa": "این یک نامه کوتاه به دوستم در شهر است.",
    "fi": "Tämä on lyhyt kirje ystävälleni kaupungissa.",
    "gu": "આ શહેરમાં મારા મિત્રને એક ટૂંકો પત્ર છે.",
    "hi": "यह शहर में मेरे मित्र को एक छोटा पत्र है।",
    "it": "Questa è una breve lettera al mio amico in città.",
    "kn": "ಇದು ನಗರದಲ್ಲಿರುವ ನನ್ನ ಸ್ನೇಹಿತನಿಗೆ ಒಂದು ಸಣ್ಣ ಪತ್ರ.",
    "ko": "이것은 도시에 있는 내 친구에게 보내는 짧은 편지입니다.",
    "mr": "हे शहरातील माझ्या मित्राला लिहिलेले एक छोटे पत्र आहे.",
    "ne": "यो सहरमा रहेको मेरो साथीलाई लेखिएको सानो चिठी हो।",
    "pa": "ਇਹ ਸ਼ਹਿਰ ਵਿੱਚ ਮੇਰੇ ਦੋਸਤ ਨੂੰ ਇੱਕ ਛੋਟੀ ਚਿੱਠੀ ਹੈ।",
    "pt": "Esta é uma pequena carta ao meu amigo na cidade.",
    "ru": "Это короткое письмо моему другу в городе.",
    "sw": "Hii ni barua fupi kwa rafiki yangu aliye mjini.",
    "ta": "இது நகரத்தில் உள்ள என் நண்பருக்கு ஒரு சிறிய கடிதம்.",
    "te": "ఇది నగరంలో ఉన్న నా స్నేహితుడికి ఒక చిన్న లేఖ.",
    "th": "นี่คือจดหมายสั้นถึงเพื่อนของฉันในเมือง.",
    "ur": "یہ شہر میں میرے دوست کے نام ایک مختصر خط ہے۔",
    "vi": "Đây là một bức thư ngắn gửi cho bạn tôi ở thành phố.",
}


def construct(ids: list[str], kwargs: list[Mapping[str, Any]], filler: str) -> str:
    """A text made of a filler and of what each instruction asks for."""
    asked = {name.split(":")[1]: given for name, given in zip(ids, kwargs, strict=True)}
    sentence = IN_LANGUAGE[asked["response_language"]["language"]] if "response_language" in asked else filler + "."
    pieces = [sentence, *_words(asked)]
    if "json_format" in asked:
        return _cased(json.dumps({"a": pieces}, ensure_ascii=False), asked)
    text = _shaped(pieces, sentence, asked)
    if "two_responses" in asked:
        text = f"{text}\n******\n{text} {sentence}"
    text = _long_enough(text, sentence, asked)
    if "postscript" in asked:
        text += f"\n{asked['postscript']['postscript_marker']} {sentence}"
    if "end_checker" in asked:
        text += f"\n{asked['end_checker']['end_phrase']}"
    if "quotation" in asked:
        text = f'"{text}"'
    text = _cased(text, asked)
    return f"{asked['repeat_prompt']['prompt_to_repeat']}\n{text}" if "repeat_prompt" in asked else text


def _words(asked: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Keywords, letters and small marks."""
    found: list[str] = []
    if "existence" in asked:
        found.append(" ".join(asked["existence"]["keywords"]))
    for name, what, times, relation in (
        ("frequency", "keyword", "frequency", "relation"),
        ("letter_frequency", "letter", "let_frequency", "let_relation"),
    ):
        if name in asked and asked[name][relation] == "at least":
            found.append(" ".join([asked[name][what]] * asked[name][times]))
    if "capital_word_frequency" in asked and asked["capital_word_frequency"]["capital_relation"] == "at least":
        found.append(" ".join(["OK"] * asked["capital_word_frequency"]["capital_frequency"]))
    if "number_placeholders" in asked:
        found.append(" ".join(["[it]"] * asked["number_placeholders"]["num_placeholders"]))
    if "number_highlighted_sections" in asked:
        found.append(" ".join(["*it*"] * asked["number_highlighted_sections"]["num_highlights"]))
    if "title" in asked:
        found.append("<<it>>")
    if "constrained_response" in asked:
        found.append("My answer is yes.")
    return found


def _shaped(pieces: list[str], sentence: str, asked: Mapping[str, Mapping[str, Any]]) -> str:
    """The pieces with bullets, sections or paragraphs."""
    text = " ".join(pieces)
    if "number_bullet_lists" in asked:
        text += "".join(f"\n* {sentence}" for _ in range(asked["number_bullet_lists"]["num_bullets"])) + "\n"
    if "multiple_sections" in asked:
        given = asked["multiple_sections"]
        text += "".join(f"\n{given['section_spliter']} {i}\n{sentence}" for i in range(1, given["num_sections"] + 1))
    if "number_paragraphs" in asked:
        text += f"\n***\n{sentence}" * (asked["number_paragraphs"]["num_paragraphs"] - 1)
    if "nth_paragraph_first_word" in asked:
        given = asked["nth_paragraph_first_word"]
        parts = [sentence] * given["num_paragraphs"]
        parts[given["nth_paragraph"] - 1] = f"{given['first_word']} {text}"
        text = "\n\n".join(parts)
    return text


def _long_enough(text: str, sentence: str, asked: Mapping[str, Mapping[str, Any]]) -> str:
    for name, num in (("number_words", "num_words"), ("number_sentences", "num_sentences")):
        if name in asked and asked[name]["relation"] == "at least":
            text += f" {sentence}" * asked[name][num]
    return text


def _cased(text: str, asked: Mapping[str, Mapping[str, Any]]) -> str:
    if "english_capital" in asked:
        return text.upper()
    return text.lower() if "english_lowercase" in asked else text
