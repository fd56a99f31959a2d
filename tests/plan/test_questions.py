"""The shipped questions as a source of prompts."""

from tests.plan.plan_factory import cell, plan, rows

from inference_energy.plan.prompts.questions import questions

QUESTIONS = {"source": "questions"}


def test_every_question_is_asked_once_before_one_is_asked_again() -> None:
    count = len(questions())
    users = {"process": "closed", "concurrency": 1, "pool": count}
    prompts, schedule = plan(cell(prompts=QUESTIONS, arrival=users, max_tokens=16))
    assert sorted(rows(prompts, ("text", "answer"))) == sorted(questions())
    assert sorted(schedule["prompt_id"].to_pylist()) == sorted(prompts["prompt_id"].to_pylist())


def test_their_order() -> None:
    users = {"process": "closed", "concurrency": 1, "pool": 5}
    filed, _ = plan(cell(prompts={**QUESTIONS, "order": "file"}, arrival=users))
    assert filed["answer"].to_pylist() == [right for _, right in questions()[:5]]


def test_they_are_asked_in_a_chat_too() -> None:
    users = {"process": "closed", "concurrency": 1, "pool": 5}
    prompts, _ = plan(cell(prompts=QUESTIONS, arrival=users, api="chat"))
    assert all(prompts["text"].to_pylist())
