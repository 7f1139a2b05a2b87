"""Parts of `dreamfleet replay`: opening what a user names, and what each action prints."""
