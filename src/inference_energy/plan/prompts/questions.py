"""The toolkit's own graded questions.

The questions are short, of several kinds, written for the toolkit and under its licence, Apache-2.0. They show the cost
of a right answer, and which of two models answers more of them; they are no benchmark of knowledge. Each asks for one
form of answer: a letter, a number, or a word. The graders are in `metrics.quality`.
"""

from inference_energy.config.load.prompts import QuestionPrompts
from inference_energy.plan.prompts.from_records import Draws, Record, RecordedSource

_NUMBER = "Answer with the number only.\nAnswer:"
_LETTER = "Answer with the letter only.\nAnswer:"
_WORD = "Answer with one word only.\nAnswer:"

ARITHMETIC = (
    ("What is 17 + 25?", "42"),
    ("What is 83 - 47?", "36"),
    ("What is 12 times 11?", "132"),
    ("What is 96 divided by 8?", "12"),
    ("What is 15 percent of 200?", "30"),
    ("What is 7 squared?", "49"),
    ("What is the square root of 144?", "12"),
    ("What is 2 to the power of 10?", "1024"),
    ("What is 1000 - 375?", "625"),
    ("What is 3/4 as a decimal number?", "0.75"),
    ("What is -8 + 3?", "-5"),
    ("What is the remainder when 29 is divided by 6?", "5"),
)
WORD_PROBLEMS = (
    ("A train travels 60 km in one hour. How many km does it travel in 3.5 hours?", "210"),
    ("A box holds 6 eggs. How many boxes are needed for 45 eggs?", "8"),
    ("Mara has 5 red pens and three times as many blue pens. How many pens does she have in all?", "20"),
    ("A shirt costs 40 euros and is reduced by 25 percent. How many euros does it cost now?", "30"),
    ("A pump fills 12 litres a minute. How many minutes does it take to fill 180 litres?", "15"),
    ("A film begins at 19:40 and ends at 21:25. How many minutes does it last?", "105"),
    ("Of 30 pupils, two fifths walk to school. How many do not walk?", "18"),
    ("A rectangle is 9 m long and 4 m wide. What is its perimeter in m?", "26"),
    ("A lamp of 10 W burns for 50 hours. How many kWh does it take?", "0.5"),
    ("Ben is 4 years older than Ida. Together they are 28. How old is Ben?", "16"),
    ("A rope of 7.5 m is cut into pieces of 0.5 m. How many pieces are there?", "15"),
    ("Three bakers bake 90 loaves in 2 hours. How many loaves does one of them bake in an hour?", "15"),
)
CHOICES = (
    ("Which planet is closest to the Sun?", ("Venus", "Mercury", "Mars", "Earth"), "B"),
    ("Which gas do plants take up for photosynthesis?", ("oxygen", "nitrogen", "carbon dioxide", "helium"), "C"),
    ("Which of these is a mammal?", ("dolphin", "shark", "trout", "frog"), "A"),
    ("Which unit measures electric current?", ("volt", "watt", "ohm", "ampere"), "D"),
    ("Which of these numbers is prime?", ("21", "27", "29", "33"), "C"),
    ("At which temperature does water boil at sea level?", ("50 °C", "100 °C", "150 °C", "200 °C"), "B"),
    ("Which continent is the Sahara in?", ("Africa", "Asia", "Europe", "South America"), "A"),
    ("Which of these is not a programming language?", ("Python", "Rust", "Go", "Ethernet"), "D"),
    ("Which organ pumps blood through the body?", ("lung", "liver", "heart", "kidney"), "C"),
    ("Which is the largest ocean?", ("Atlantic", "Indian", "Arctic", "Pacific"), "D"),
    ("Which metal is liquid at room temperature?", ("mercury", "iron", "copper", "tin"), "A"),
    ("Which of these fractions is the largest?", ("1/2", "2/3", "3/5", "5/9"), "B"),
    ("Which instrument measures air pressure?", ("thermometer", "barometer", "altimeter scale", "compass"), "B"),
    ("What is a shape with five sides called?", ("hexagon", "square", "pentagon", "octagon"), "C"),
    ("Which of these words is a verb?", ("quickly", "green", "house", "run"), "D"),
    ("Which of these is a renewable source of energy?", ("wind", "coal", "oil", "natural gas"), "A"),
)
WORDS = (
    ("What is the capital of France?", "Paris"),
    ("What is the capital of Japan?", "Tokyo"),
    ("What is the opposite of hot?", "cold"),
    ("What is the opposite of early?", "late"),
    ("What is the plural of mouse, the animal?", "mice"),
    ("What is the past tense of go?", "went"),
    ("Which day comes after Tuesday?", "Wednesday"),
    ("Which month comes before August?", "July"),
    ("Which colour do blue and yellow paint make when mixed?", "green"),
    ("What is frozen water called?", "ice"),
    ("What is a young dog called?", "puppy"),
    ("Which language is spoken in Brazil?", "Portuguese"),
    ("Which chemical element has the symbol O?", "oxygen"),
    ("Which star does the Earth orbit?", "Sun"),
    ("Spell the word LEVEL backwards.", "level"),
    ("Which animal gives wool: the sheep or the snake?", "sheep"),
)
SEQUENCES = (
    ("Which number comes next: 2, 4, 8, 16?", "32"),
    ("Which number comes next: 3, 6, 9, 12?", "15"),
    ("Which number comes next: 1, 1, 2, 3, 5, 8?", "13"),
    ("Which number comes next: 100, 90, 81, 73?", "66"),
    ("Which number comes next: 1, 4, 9, 16, 25?", "36"),
    ("How many letters are in the word banana?", "6"),
    ("How many times does the letter s occur in the word mississippi?", "4"),
    ("How many days are in a leap year?", "366"),
    ("How many minutes are in 2.5 hours?", "150"),
    ("How many sides do three triangles have in all?", "9"),
)


def questions() -> list[tuple[str, str]]:
    """Return the full text of every question, with its right answer."""
    numbers = [(f"{text} {_NUMBER}", right) for text, right in (*ARITHMETIC, *WORD_PROBLEMS, *SEQUENCES)]
    letters = [
        (
            f"{text}\n"
            + "\n".join(f"{name}) {choice}" for name, choice in zip("ABCD", choices, strict=True))
            + f"\n{_LETTER}",
            right,
        )
        for text, choices, right in CHOICES
    ]
    words = [(f"{text} {_WORD}", right) for text, right in WORDS]
    return [*numbers, *letters, *words]


def question_source(config: QuestionPrompts, draws: Draws) -> RecordedSource:
    """Return the questions as a source of prompts."""
    records = [Record(text=text, answer=right) for text, right in questions()]
    return RecordedSource(("questions",), records, config.order, draws, conversations=None, history="actual")
