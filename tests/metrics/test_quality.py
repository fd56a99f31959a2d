"""Graders, accuracies with their intervals, and joules of a right answer."""

import numpy as np
import pandas as pd
import pytest
from made_cells import codes, made_cell

from inference_energy.config.analysis import QualityConfig
from inference_energy.metrics.energy_per_answer import energy_per_answer, goodput_at_floor
from inference_energy.metrics.quality import accuracy, choose_grader, grade_answers, is_right
from inference_energy.plan.prompts.questions import questions

AUTO = QualityConfig()


@pytest.mark.parametrize(
    ("answer", "right", "expected"),
    [
        ("42", "42", True),
        ("17 + 25 = 42.", "42", True),
        ("The answer is 42, because 17 + 25 is more than 40.", "42", True),
        ("It is 1,024", "1024", True),
        ("#### 36\nand 7 more", "36", True),
        ("0.750000000001", "0.75", True),
        ("−5", "-5", True),
        ("41 or 42 or 43", "42", False),
        ("no idea", "42", False),
        ("B", "B", True),
        (" (b) no, (B) yes", "B", True),
        ("B) Mercury", "B", True),
        ("A planet like Mercury", "A", False),
        ("Answer: C. I thought of A) first", "C", True),
        ("Bread", "B", False),
        ("<think>A) or B)?</think>B", "B", True),
        ("<think>B and no end", "B", False),
        ("Paris", "Paris", True),
        ("  paris.\nIt is in France.", "Paris", True),
        ("The Sun", "Sun", True),
        ("It is Paris", "Paris", False),
        (' \nThe answer is "Paris"', "Paris", True),
        ("Answer: Paris, of course", "Paris", False),
        ("The answer is Rome", "Paris", False),
        ("", "Paris", False),
    ],
)
def test_graders(answer, right, expected):
    assert is_right(answer, right, choose_grader(right)) is expected


def test_the_form_of_the_right_answer_chooses_the_grader():
    assert [choose_grader(right) for right in ("C", "0.5", "-5", "ice", "I", "12 km")] == [
        "multiple_choice",
        "numeric",
        "numeric",
        "exact",
        "exact",
        "exact",
    ]
    # A grader that is asked for goes before the form.
    assert is_right("Choice: (C)", "C", "multiple_choice")
    assert not is_right("Choice: (C)", "C", "exact")


def test_every_shipped_question_is_answered_by_its_own_answer():
    shipped = questions()
    assert len(shipped) >= 60
    assert len({text for text, _ in shipped}) == len(shipped)
    assert all(is_right(right, right, choose_grader(right)) for _, right in shipped)
    assert {choose_grader(right) for _, right in shipped} == {"exact", "numeric", "multiple_choice"}


def graded_cell(said=str, **more):
    """Ten prompts, whose right answers are their ids, each asked twice."""
    base = made_cell()
    ids = np.arange(10)
    prompts = pd.DataFrame(
        {"prompt_id": ids, "text": [f"q{i}" for i in ids], "messages": None, "answer": [str(i) for i in ids]}
    )
    answers = base.requests[["request_id", "cell"]].assign(text=[said(i) for i in base.requests["prompt_id"]])
    return made_cell(prompts=prompts, answers=answers, **more)


def figures_of(cell, config=AUTO):
    return energy_per_answer(cell, grade_answers(cell, config))


def test_joules_of_a_right_answer():
    found = figures_of(graded_cell(lambda i: str(i) if i < 8 else "none"))
    # 8 of 10 questions are answered rightly, each twice: 16 of 20; 6000 J.
    assert found["correct_answers"].value == 16
    assert found["energy_total_per_correct_answer_j"].value == pytest.approx(6000 / 16)
    assert found["energy_marginal_per_correct_answer_j"].value == pytest.approx(4000 / 16)
    assert found["accuracy_share"].value == pytest.approx(0.8)
    # Wilson's interval of 8 of 10, not of 16 of 20.
    assert found["accuracy_share"].interval_95 == pytest.approx((0.49016, 0.94331), abs=1e-4)
    assert codes(found["accuracy_share"]) == ["repeated_questions"]


def test_the_interval_of_a_perfect_score_is_not_empty():
    low, high = figures_of(graded_cell())["accuracy_share"].interval_95
    assert (low, high) == (pytest.approx(0.7225, abs=1e-3), 1.0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"answers": None}, "answers_not_kept"),
        ({"prompts": made_cell().prompts}, "no_graded_prompts"),
    ],
)
def test_why_there_is_no_grade(change, code):
    found = figures_of(made_cell(**{**vars(graded_cell()), **change}))
    assert {tuple(codes(figure)) for figure in found.values()} == {(code,)}


def test_some_without_a_right_answer_spoil_the_window():
    cell = graded_cell()
    some = cell.prompts.assign(answer=cell.prompts["answer"].where(cell.prompts["prompt_id"] > 2))
    found = figures_of(made_cell(**{**vars(cell), "prompts": some}))
    assert codes(found["energy_total_per_correct_answer_j"]) == ["no_graded_prompts"]
    assert "6 of 20" in found["accuracy_share"].reasons[0].detail


def test_a_missing_text_is_no_wrong_answer():
    cell = graded_cell()
    found = figures_of(made_cell(**{**vars(cell), "answers": cell.answers.iloc[1:]}))
    assert codes(found["accuracy_share"]) == ["answers_not_kept"]


def test_not_one_right_answer():
    found = figures_of(graded_cell(lambda _: "none"))
    assert found["correct_answers"].value == 0
    assert codes(found["energy_total_per_correct_answer_j"]) == ["no_correct_answers"]


def test_goodput_at_a_quality_floor():
    cell = graded_cell(good_per_s=1)
    own = [grade_answers(cell, AUTO)]
    name = "goodput_total_requests_per_kwh_at_floor"
    assert goodput_at_floor(cell, own, QualityConfig(floor=0.7))[name].value == pytest.approx(20 / 6000 * 3.6e6)
    assert codes(goodput_at_floor(cell, own, QualityConfig(floor=0.8))[name]) == ["below_quality_floor"]
    assert codes(goodput_at_floor(cell, own, AUTO)[name]) == ["no_quality_floor"]
    nothing = [grade_answers(made_cell(), AUTO)]
    assert codes(goodput_at_floor(cell, nothing, QualityConfig(floor=0.7))[name]) == ["no_graded_prompts"]
    assert "no_limits" in codes(goodput_at_floor(graded_cell(), own, QualityConfig(floor=0.7))[name])


def test_accuracy_of_a_server_counts_a_question_once():
    first, second = graded_cell(), graded_cell(lambda i: str(i) if i < 5 else "none", name="v")
    figure = accuracy([grade_answers(first, AUTO), grade_answers(second, AUTO)])
    assert figure.value == pytest.approx(0.75)
    assert "10 questions were asked 40 times" in figure.reasons[0].detail
