"""The simulated world of `faultline simulate`: users, an assistant of stages that really fail, and the truth.

```
phrases, catalogue ─ world ─┬─ users ──────────────────────────────┐
                            └─ wake telephone asr nlu resolution action ─ assistant ─ truth ─ dialogue
```
"""
