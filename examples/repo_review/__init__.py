"""Reviews a git repository: where does change meet complexity, and who knows that code?"""
