"""How good search is: labelled questions asked through the real `hybrid_search`.

A collection (documents, questions, judgments) is loaded for an account of its own, asked as an
ordinary user, and compared with the figures that an earlier version reached.
"""
