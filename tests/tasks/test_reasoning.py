"""What is reported of questions whose words name boxes."""

from vlc.tasks.reasoning import accuracies


def test_accuracies_of_types_count_the_most_probable_choice():
    records = [
        {"label": 1, "probabilities": [0.1, 0.6, 0.3], "question_type": "name"},
        {"label": 0, "probabilities": [0.1, 0.6, 0.3], "question_type": "name"},
        {"label": 2, "probabilities": [0.1, 0.2, 0.7], "question_type": "same"},
        {"label": 2, "probabilities": [0.1, 0.2, 0.7], "question_type": None},
        {"probabilities": [0.1, 0.2, 0.7], "question_type": "same"},
    ]
    assert accuracies(records) == {"accuracy/name": 0.5, "accuracy/same": 1.0}
