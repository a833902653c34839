"""What did a build find, on one page that anyone can open?"""
