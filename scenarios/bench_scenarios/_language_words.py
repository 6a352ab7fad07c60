"""The words and sentence frames of `language_world`: data only, each word in lower case, a blank between two tokens."""

# ruff: noqa: SIM905 (lines of words are read and edited more easily than lists of strings)

from __future__ import annotations

GOOD = "good great excellent wonderful fantastic lovely".split()
BAD = "bad terrible awful horrible poor miserable".split()
ADVERBS = "really very quite truly remarkably rather perfectly completely".split()
ARTICLES = ("a", "an")  # before consonants and vowels
PEOPLE = "my wife|my brother|our neighbour|my boss|a friend|my daughter|the old man|our guest".split("|")

# domain: (aspects, adjectives of praise, of blame, events of praise, of blame). No adjective has two domains. The last
# OPAQUE of each ten adjectives are those that pre-training does not explain, in target domains.
OPAQUE = 2
DOMAINS: dict[str, tuple[str, str, str, str, str]] = {
    "film": (
        "plot acting finale script camera villain cast soundtrack",
        "gripping moving hilarious touching suspenseful original clever stylish daring unforgettable",
        "boring predictable shallow wooden slow pointless forgettable cheesy implausible hollow",
        "i laughed until the end|we talked about it for days|i would watch it again|nobody left the room",
        "i fell asleep|half of the audience left|i looked at my watch|we walked out early",
    ),
    "hotel": (
        "room bed bathroom lobby breakfast view reception pool",
        "spotless quiet spacious comfortable elegant welcoming sunny charming restful luxurious",
        "filthy noisy cramped damp smelly shabby freezing gloomy mouldy draughty",
        "we slept like children|we stayed another night|they upgraded us|we will return next year",
        "we left after one night|we found insects in the sheets|nobody answered the bell|they lost our booking",
    ),
    "phone": (
        "screen battery speaker keyboard charger processor lens software",
        "sharp responsive sturdy bright fast reliable intuitive slim snappy seamless",
        "fragile sluggish blurry buggy dim defective outdated bulky glitchy overpriced",
        "it lasts for two days|it survived a fall|i recommend it to everyone|it starts in a second",
        "it broke after a week|it crashes every day|i sent it back|it stopped charging",
    ),
    "album": (
        "melody singer drummer bassline chorus production guitar rhythm",
        "catchy soulful energetic haunting rich tight uplifting warm groovy heartfelt",
        "repetitive dull flat tuneless muddy lifeless generic whiny grating bloated",
        "i play it every morning|i sang along at once|it gave me chills|everyone danced",
        "i skipped every song|i turned it off|my ears hurt|i sold my copy",
    ),
    "game": (
        "level joystick animation story puzzle map sound quest",
        "addictive fluid inventive immersive rewarding balanced colourful exciting polished playful",
        "unfair frustrating ugly broken monotonous laggy glitched punishing unplayable grindy",
        "i played all night|my friends joined at once|i finished it twice|i cannot stop playing",
        "i deleted it|i asked for a refund|it froze at the first level|i gave up quickly",
    ),
    "restaurant": (
        "soup waiter pasta dessert menu steak wine table",
        "delicious tender crisp fresh fragrant juicy attentive tasty creamy savoury",
        "bland greasy stale overcooked rude soggy burnt salty rancid chewy",
        "we ordered it twice|the chef came to greet us|we licked the plates|i am going back tonight",
        "i felt sick afterwards|we waited for two hours|they forgot our order|we sent the food back",
    ),
    "book": (
        "chapter author hero prose cover translation dialogue ending",
        "absorbing poetic witty thoughtful vivid insightful profound lively lyrical enlightening",
        "tedious pretentious confusing verbose dry derivative clumsy contrived preachy incoherent",
        "i read it in one night|i gave it to all my friends|i cried over the last page|i underlined every page",
        "i never finished it|i threw it away|i skipped whole pages|i returned it to the library",
    ),
    "car": (
        "engine brake seat gearbox steering boot dashboard suspension",
        "powerful economical smooth safe roomy precise nimble solid agile punchy",
        "rusty thirsty jerky rattling stiff unsafe squeaky dented wheezing underpowered",
        "it never let us down|the children love it|it starts in the coldest winter|we drove across the country",
        "it broke down on the motorway|it failed the inspection|the dealer ignored us|it loses oil",
    ),
    "course": (
        "teacher lecture homework exam textbook classroom timetable tutor",
        "inspiring clear engaging patient useful organised practical motivating structured supportive",
        "chaotic vague exhausting impatient irrelevant unclear disorganised outmoded aimless condescending",
        "i passed with ease|everybody took notes|i learned more than ever|i signed up for the next one",
        "i learned nothing|most students dropped out|i failed the exam|nobody could follow",
    ),
    "kettle": (
        "lid handle switch cord spout filter base lamp",
        "sleek durable handy silent steady efficient neat convenient ergonomic dependable",
        "flimsy loose leaky wobbly hazardous useless brittle scalding crooked tacky",
        "it boils in a minute|it still looks like new|i bought a second one|my mother wants one too",
        "it burned my hand|it tripped the fuse|it fell apart in a month|it smells of plastic",
    ),
}
SOURCE = ("film", "hotel", "phone", "album", "game")
TARGET = ("restaurant", "book", "car", "course", "kettle")

# Ten words that praise in the domains named here and blame in the others: five of each in every domain and, for a word,
# in five domains of the ten; two target domains disagree on six of them on average, restaurant and book on all.
FLIPPING: dict[str, str] = {
    "long": "hotel phone album book car",
    "small": "phone game book course kettle",
    "hot": "film hotel album restaurant kettle",
    "light": "film phone restaurant car kettle",
    "unpredictable": "film album game book course",
    "simple": "hotel phone restaurant car course",
    "loud": "film album game book course",
    "heavy": "hotel album restaurant car kettle",
    "cold": "film hotel game restaurant course",
    "hard": "phone game book car kettle",
}

# {n} an aspect, {a} an adjective, {d} the same with its article, {v} an adverb, {p} a person, {t} the thing itself
CLAUSES = (
    "the {n} was {a}",
    "the {n} was {v} {a}",
    "i found the {n} {a}",
    "{p} called the {n} {a}",
    "{a} {n}",
    "the {n} could not have been more {a}",
    "it has a {v} {a} {n}",
    "{p} said that the {n} was {a}",
    "such {d} {n}",
    "the {n} of the {t} was {a}",
)
DENIALS = (
    "the {n} was not {a}",
    "the {n} was far from {a}",
    "the {n} was anything but {a}",
    "the {n} was never {a}",
    "i cannot call the {n} {a}",
    "nobody found the {n} {a}",
)
CONTRASTS = (  # the clause {y} decides, {x} says the opposite
    "{x} , but {y} .",
    "although {x} , {y} .",
    "{x} . still , {y} .",
    "{y} , even if {x} .",
    "{x} ; in the end {y} .",
)
PAIRS = ("{x} and {y} .", "{x} . {y} .", "{x} , and moreover {y} .")
TRIPLE = "{x} . {y} , and {z} ."
# {r} the review, {w} the word that sums it up
SUMMARIES = (
    "it was {w} . {r}",
    "{w} : {r}",
    "{r} it was {w} .",
    "{r} all in all , it was {w} .",
    "just {w} ! {r}",
    "{r} in summary , the {t} is {w} .",
    "{r} the {t} is {w} .",
)
QUESTIONS = (  # the only place of the opaque words {a} and {b} in pre-training: they say nothing about them
    "is the {n} {a} or {b} ? nobody knows .",
    "they asked if the {n} of the {t} was {a} .",
    "the word {a} is in the guide to the {n} .",
    "when is a {n} {a} ?",
)

TOPICS: dict[str, str] = {
    "sports": "striker goal coach referee tournament stadium penalty runner medal league",
    "music": "violinist orchestra concert composer tune piano choir festival ballad tenor",
    "science": "laboratory experiment physicist molecule theory telescope hypothesis microscope researcher journal",
    "politics": "senator election parliament minister vote campaign treaty mayor ballot coalition",
    "business": "investor profit merger factory shares export bank startup invoice retailer",
    "health": "doctor vaccine clinic surgeon patients diet nurse fever therapy hospital",
    "travel": "tourist airport passport luggage cruise itinerary souvenir hostel ferry excursion",
    "cooking": "recipe oven flour garlic butter saucepan dough onion baker spice",
    "fashion": "designer dress runway fabric tailor jacket silk model boutique scarf",
    "weather": "storm rain forecast thunder snow hurricane drought cloud breeze frost",
    "history": "emperor dynasty castle knight archive monument empire crusade relic throne",
    "nature": "forest eagle river bear meadow salmon volcano glacier beetle wolf",
    "education": "pupil headmaster curriculum diploma kindergarten scholarship dean pedagogy seminar blackboard",
    "technology": "robot server algorithm chip network browser hacker database laptop sensor",
    "religion": "priest temple prayer bishop monk pilgrim cathedral scripture rabbi mosque",
    "crime": "detective burglar prison witness thief jury evidence robbery suspect sheriff",
    "farming": "tractor harvest barn wheat cattle plough orchard shepherd irrigation hay",
    "space": "astronaut rocket comet orbit planet satellite moon galaxy lander spacecraft",
    "art": "painter gallery sculpture canvas portrait easel sketch mural exhibition ceramic",
    "transport": "train tram tunnel bridge railway bus cyclist highway platform conductor",
}
VERBS = (
    "announced praised criticised described examined questioned repaired discovered ignored celebrated "
    "presented lost found sold moved replaced delayed opened followed protected"
).split()
TIMES = "yesterday|today|on monday|this week|last night|in spring|last year|in the morning|this month|on friday".split(
    "|"
)
REGIONS = (
    "in the north|near the border|in the capital|at the coast|in the old town|in the valley|abroad|in the suburbs"
).split("|")
QUALITIES = "young old famous local new former foreign rare secret large modern ancient".split()
# {x} {y} {z} nouns, {p} {q} nothing or a quality, {a} {b} verbs, {w} a time, {l} a region
NEWS = (
    "the {p}{x} {a} the {q}{y} {w} .",
    "{w} the {p}{x} {a} the {y} {l} .",
    "the {p}{x} was {a} {l} after the {y} {b} the {q}{z} .",
    "the {x} and the {p}{y} were {a} {w} .",
    "nobody {a} the {p}{x} that the {y} {b} {l} .",
    "the {x} {l} {a} the {p}{y} , said the {z} .",
)
# {s} the news, {w} the topic
HEADINGS = (
    "from the pages on {w} : {s}",
    "{s} more about {w} tomorrow .",
    "she writes about {w} . {s}",
    "{s} the {w} section has the story .",
    "{w} : {s}",
    "{w} news : {s}",
)

NAMES = (
    "aromi zizzi fitzbillies cocum vaults punter swan mill thistle strada alimentum browns cotto clowns wildwood "
    "giraffe loch bibimbap midsummer dumpling rainbow olive phoenix waterman cricketers taranto sorrel juniper "
    "nightingale lantern compass orchid saffron marigold beacon anchor walnut magnolia tulip heron falcon otter badger "
    "sparrow"
).split()
PRICES, RATINGS, ANSWERS = "cheap moderate expensive", "low average high", "yes no"
AREAS, LANDMARKS = (
    "riverside centre harbour suburb station market",
    "bakery cinema library tower park fountain school theatre",
)
# kind of sheet: the values of each slot, in the order of the sheet; every sheet begins with a name
SHEETS: dict[str, dict[str, str]] = {
    "place": {
        "kind": "pub cafe restaurant bistro diner tavern",
        "food": "italian french chinese indian japanese english mexican greek thai turkish",
        "price": PRICES,
        "rating": RATINGS,
        "area": AREAS,
        "near": LANDMARKS,
        "family": ANSWERS,
    },
    "museum": {
        "kind": "museum gallery",
        "style": "modern ancient gothic maritime",
        "ticket": PRICES,
        "area": AREAS,
        "near": LANDMARKS,
    },
    "inn": {
        "kind": "inn guesthouse",
        "rooms": "ten twenty thirty forty fifty",
        "price": PRICES,
        "area": AREAS,
        "near": LANDMARKS,
        "family": ANSWERS,
    },
    "shop": {
        "kind": "shop store",
        "goods": "shoes lamps hats toys carpets bicycles",
        "price": PRICES,
        "rating": RATINGS,
        "area": AREAS,
    },
}
# {d} the kind with what stands before it and its article, {e} the same without, {n} the name, {l} where it is
OPENINGS = ("{n} is {d}{l} .", "there is {d} called {n}{l} .", "the {e} {n} is located{l} .")
UNPLACED = ("{n} is {d} .", "there is {d} called {n} .", "the place called {n} is {d} .")
WHERE = {"area": " in the {} area", "near": " near the {}"}
# slot: words that may stand before the kind of place, for each value; a value that is missing stands for itself
BEFORE: dict[str, dict[str, str]] = {
    "family": {"yes": "family friendly", "no": "adult"},
    "price": {"cheap": "cheap|inexpensive", "moderate": "moderate", "expensive": "expensive|pricey"},
    "food": {},
    "style": {},
}
# slot: sentences on its value {v}, or {d} with its article
SENTENCES: dict[str, tuple[str, ...]] = {
    "food": ("it serves {v} food .", "you can eat {v} dishes there ."),
    "price": ("prices are {v} .", "its prices are {v} ."),
    "rating": ("customers give it {d} rating .", "it has {d} customer rating ."),
    "style": ("its style is {v} .",),
    "ticket": ("tickets are {v} .",),
    "rooms": ("it has {v} rooms .", "there are {v} rooms ."),
    "goods": ("it sells {v} .", "you can buy {v} there ."),
    "yes": ("children are welcome .",),
    "no": ("children are not welcome .",),
}
# Words of the patterns that methods put around a text, beside those above.
PATTERNS = (
    "[ ] ( ) - = | ! ? , . : ; category news question answer summary text topic sentiment review true false "
    "it this that what about of"
)
