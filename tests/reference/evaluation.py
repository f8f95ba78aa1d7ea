def check_evaluation(file):
    return []
