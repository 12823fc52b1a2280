"""New instructions for recorded episodes, written by a vision-language model that looks at them.

    storyboard.py  what an episode looks like: twelve moments of every camera that is not frozen
    question.py    what the model is asked
    endpoint.py    a model behind an OpenAI-compatible address;  local.py  a checkpoint of ours
    answers.py     whether an answer is an instruction
    asking.py      all episodes: asked, asked again, noted in a ledger;  place.py  where that is;  run.py  all of it
    review.py      a page on which a person accepts, edits or rejects;  decisions.py  and what follows
    diversity.py   labels before and after;  estimate.py  what a run would ask for

Facts: paper.md 1 (re-annotation); the paper gives neither the wording, nor the exponent, nor what a frozen camera is.
"""
