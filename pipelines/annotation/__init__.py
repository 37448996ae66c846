"""Turns that people annotate: which are chosen, what is asked of each, and the files of the annotation tools.

The unit is one turn, shown in its whole dialogue. What failed can only be judged by what came before and after, so
the dialogue is always in view; but of most dialogues only a turn or two need a person, the questions of an Argilla
data set are the same for every record, and in Label Studio a span needs a text of its own. The turns of a dialogue
follow one another, so that it is read once.
"""
