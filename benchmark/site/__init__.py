"""Records as static pages that need no server and no network: what `bench site` writes (`build`).

Pages show what `benchmark.leaderboard` computes; nothing is computed here. Whatever stands in a record is a stranger's
text: templates escape all of it, names of files are made from it by `benchmark.site.names` alone, links to elsewhere by
`benchmark.site.links`, and a policy in every page forbids scripts, styles and pictures that are not files of the site.
"""
