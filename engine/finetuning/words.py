"""What made-up arguments are made of, by what a property's name or description speaks of."""

import random
from collections.abc import Callable, Sequence

Draw = Callable[[random.Random], str]


def _one_of(values: Sequence[str]) -> Draw:
    return lambda source: source.choice(values)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


CITIES = _list(
    "Lisbon, Oslo, Nairobi, Toronto, Kyoto, Lima, Prague, Seoul, Austin, Geneva, Mumbai, Dublin, New York, Cape Town, "
    "Buenos Aires, San Diego, Leipzig, Porto, Krakow, Manila"
)
COUNTRIES = _list("Portugal, Norway, Kenya, Canada, Japan, Peru, Chile, India, Ireland, Vietnam, Greece, Poland")
PEOPLE = _list("Maria, Tom, Aisha, Kenji, Ingrid, Pablo, Dr. Smith, Anna Keller, John Miller, Priya Rao, Lukas, Sofia")
LANGUAGES = _list("German, Spanish, Japanese, Portuguese, Arabic, Korean, Italian, Polish, Hindi, Dutch")
CURRENCIES = _list("USD, EUR, JPY, GBP, CHF, CAD, SEK, INR, AUD")
SYMBOLS = _list("MSFT, NVDA, TSLA, IBM, ORCL, AMD, NFLX, SAP")
COLOURS = _list("red, blue, green, warm white, purple, orange, yellow")
TITLES = _list(
    "Blue Train, The Long Road, Autumn Leaves, Dune, Moonlight Sonata, The Old House, Silent River, Northern Lights"
)
TOPICS = _list(
    "solar panels, green tea, garden chairs, jazz, electric bikes, hiking boots, tax law, coral reefs, winter coats, "
    "chess openings, sourdough bread, mountain lakes, wireless headphones, medieval castles, running shoes, maps"
)
SENTENCES = [
    "See you at noon",
    "The meeting is moved to Friday",
    "Please call me back",
    "Thank you for your help",
    "Dinner is ready",
    "I will be ten minutes late",
    "Good luck tomorrow",
    "Where is the station?",
    "Do not forget the keys",
]
UNITS = _list("kilometers, miles, kilograms, pounds, meters, feet, liters, inches")
ROOMS = _list("kitchen, bedroom, living room, office, hallway, garage")
DAYS = _list("today, tomorrow, Monday, Friday, next Tuesday")
FOODS = _list("pizza, ramen, tomato soup, tacos, lentil curry, salad, rice, noodles")
ANIMALS = _list("cat, horse, owl, dolphin, rabbit, fox")


def _date(source: random.Random) -> str:
    return f"{source.randint(2023, 2027)}-{source.randint(1, 12):02}-{source.randint(1, 28):02}"


def _time(source: random.Random) -> str:
    return f"{source.randint(0, 23):02}:{source.choice((0, 15, 30, 45)):02}"


def _email(source: random.Random) -> str:
    user = source.choice(("maria", "tom", "office", "ken", "info", "anna"))
    return f"{user}@{source.choice(('example.com', 'mail.org'))}"


def _url(source: random.Random) -> str:
    return f"https://{source.choice(('example.com', 'shop.org', 'news.net'))}/{source.choice(('a', 'home', 'page2'))}"


def _code(source: random.Random) -> str:
    return f"{source.choice('ABCDEFGHKMNPRSTX')}{source.choice('ABCDEFGHKMNPRSTX')}{source.randint(100, 9999)}"


def _phone(source: random.Random) -> str:
    return f"+{source.randint(1, 98)} {source.randint(100, 999)} {source.randint(10000, 99999)}"


def _expression(source: random.Random) -> str:
    """Arithmetic as people type it."""
    left, right, third = (source.randint(2, 99) for _ in range(3))
    return source.choice(
        (
            f"{left} + {right}",
            f"{left} * {right}",
            f"{left} - {right}",
            f"{left} / {right}",
            f"({left} + {right}) * {third}",
            f"{left} * {right} + {third}",
            f"sqrt({left})",
            f"{source.randint(2, 9)} ** {source.randint(2, 4)}",
        )
    )


# The first row with a word of the property's name or description counts.
HINTS: tuple[tuple[frozenset[str], Draw], ...] = tuple(
    (frozenset(signs.split()), draw)
    for signs, draw in (
        ("expression formula equation", _expression),
        ("email mail recipient", _email),
        ("url link website address", _url),
        ("phone number", _phone),
        ("symbol ticker stock", _one_of(SYMBOLS)),
        ("currency currencies", _one_of(CURRENCIES)),
        ("language languages", _one_of(LANGUAGES)),
        ("country countries nation", _one_of(COUNTRIES)),
        ("city cities location place destination origin town where", _one_of(CITIES)),
        ("date birthday", _date),
        ("day when weekday", _one_of(DAYS)),
        ("time hour clock", _time),
        ("color colour", _one_of(COLOURS)),
        ("unit units", _one_of(UNITS)),
        ("room lamp light device", _one_of(ROOMS)),
        ("dish food ingredient ingredients recipe meal", _one_of(FOODS)),
        ("animal species pet", _one_of(ANIMALS)),
        ("title song movie book film artist album track", _one_of(TITLES)),
        ("message text body note content sentence reminder comment", _one_of(SENTENCES)),
        ("person name contact user author guest patient customer", _one_of(PEOPLE)),
        ("id code number key order flight", _code),
    )
)

# By the schema's `format`.
FORMATS: dict[str, Draw] = {
    "date": _date,
    "time": lambda source: f"{_time(source)}:00Z",
    "date-time": lambda source: f"{_date(source)}T{_time(source)}:00Z",
    "email": _email,
    "uri": _url,
}
