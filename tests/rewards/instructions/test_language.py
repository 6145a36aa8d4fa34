"""The language of a whole response."""

from __future__ import annotations

import pytest

from strop.rewards.instructions.language import response_language

TEXTS = {
    "ar": "هذه رسالة قصيرة أكتبها إلى صديقي في المدينة. أتمنى أن يكون بخير.",
    "bg": "Това е кратко писмо до моя приятел в града. Надявам се, че е добре.",
    "bn": "এটি শহরে আমার বন্ধুর কাছে একটি ছোট চিঠি।",
    "de": "Das ist ein kurzer Brief an meinen Freund in der Stadt. Ich hoffe, es geht ihm gut.",
    "en": "This is a short letter to my friend in the city. I hope he is well.",
    "fa": "این یک نامه کوتاه به دوستم در شهر است. امیدوارم حالش خوب باشد.",
    "fi": "Tämä on lyhyt kirje ystävälleni kaupungissa. Toivon, että hän voi hyvin.",
    "gu": "આ શહેરમાં મારા મિત્રને એક ટૂંકો પત્ર છે.",
    "hi": "यह शहर में मेरे मित्र को एक छोटा पत्र है। मुझे आशा है कि वह ठीक है।",
    "it": "Questa è una breve lettera al mio amico in città. Spero che stia bene.",
    "kn": "ಇದು ನಗರದಲ್ಲಿರುವ ನನ್ನ ಸ್ನೇಹಿತನಿಗೆ ಒಂದು ಸಣ್ಣ ಪತ್ರ.",
    "ko": "이것은 도시에 있는 내 친구에게 보내는 짧은 편지입니다.",
    "mr": "हे शहरातील माझ्या मित्राला लिहिलेले एक छोटे पत्र आहे. मला आशा आहे की तो बरा आहे.",
    "ne": "यो सहरमा रहेको मेरो साथीलाई लेखिएको सानो चिठी हो। उसलाई सन्चै छ भन्ने आशा छ।",
    "pa": "ਇਹ ਸ਼ਹਿਰ ਵਿੱਚ ਮੇਰੇ ਦੋਸਤ ਨੂੰ ਇੱਕ ਛੋਟੀ ਚਿੱਠੀ ਹੈ।",
    "pt": "Esta é uma pequena carta ao meu amigo na cidade. Espero que ele esteja bem.",
    "ru": "Это короткое письмо моему другу в городе. Надеюсь, у него всё хорошо.",
    "sw": "Hii ni barua fupi kwa rafiki yangu aliye mjini. Natumaini yuko salama.",
    "ta": "இது நகரத்தில் உள்ள என் நண்பருக்கு ஒரு சிறிய கடிதம்.",
    "te": "ఇది నగరంలో ఉన్న నా స్నేహితుడికి ఒక చిన్న లేఖ.",
    "th": "นี่คือจดหมายสั้นถึงเพื่อนของฉันในเมือง",
    "ur": "یہ شہر میں میرے دوست کے نام ایک مختصر خط ہے۔ مجھے امید ہے کہ وہ ٹھیک ہے۔",
    "vi": "Đây là một bức thư ngắn gửi cho bạn tôi ở thành phố. Tôi hy vọng anh ấy khỏe.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_each_language_is_itself_and_no_other(language: str) -> None:
    for wanted in TEXTS:
        held = response_language(TEXTS[language], wanted)
        assert held.ok is (wanted == language), (wanted, held.said)


def test_half_in_another_language_is_not_in_the_language() -> None:
    assert not response_language(f"{TEXTS['de']} {TEXTS['en']}", "de").ok
    assert not response_language(f"{TEXTS['hi']} {TEXTS['en']}", "hi").ok
    assert not response_language(f"{TEXTS['hi']} {TEXTS['mr']}", "hi").ok


def test_a_name_in_another_script_does_no_harm() -> None:
    assert response_language(f"{TEXTS['ru']} {TEXTS['ru']} OpenAI.", "ru").ok


def test_code_alone_is_in_no_language() -> None:
    assert not response_language("```\nimport os\n```", "en").ok
