"""What is read of uv's answers."""

from pinproof.locks import solver


def test_a_long_explanation_of_the_solver_is_cut_at_a_word():
    assert solver._trim("word " * 500).endswith("word ...")
    assert len(solver._trim("word " * 500)) < 610
