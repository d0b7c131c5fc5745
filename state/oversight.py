"""What a manager who checks is worth: how often work stays wrong that is looked at and redone."""


def leaf_failure(error: float, *, recall: float, redos: int) -> float:
    """The chance that one part is wrong in the end.

    Each try is wrong with chance `error`; the manager notices that with chance `recall`, what it
    missed it keeps missing, and what it noticed is done again, at most `redos` times:

        error (1 - recall) (1 - x^redos) / (1 - x) + x^redos error,   x = error recall

    >>> round(leaf_failure(0.05, recall=0.8, redos=1), 4)
    0.012
    """
    noticed = error * recall
    again = noticed**redos
    passes = redos if noticed == 1 else (1 - again) / (1 - noticed)
    return error * (1 - recall) * passes + again * error


def task_failure(error: float, *, leaves: int, recall: float, redos: int) -> float:
    """The chance that a task of independent parts has one that is wrong in the end.

    >>> [round(task_failure(0.05, leaves=10, recall=0.8, redos=m), 4) for m in (0, 1, 5)]
    [0.4013, 0.1137, 0.0994]
    """
    return 1 - (1 - leaf_failure(error, recall=recall, redos=redos)) ** leaves
