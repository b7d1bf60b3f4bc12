"""The words around rankings in each language. Names of proxies and of networks stay as they are."""

from collections.abc import Mapping

from host.report.measurement_texts import Language

TEXTS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "title": "Ranked without training by {judge}: {networks} of {source}",
        "one": "1 network",
        "many": "{count} networks",
        "rank": "rank",
        "ranks": "rank\n{low}-{high} %",
        "score": "score\n(log-rank)",
        "latency": "{device}\nlatency ms, predicted\n[{level} %]",
        "macs": "MACs\nM",
        "parameters": "params\nM",
        "network": "network",
        "front": "front",
        "on_front": "*",
        "more": "{count} more are not shown: --top 0 shows all, --csv and --json have all",
        "how": "score: {formula}; higher is better, comparable within this ranking only, no"
        " accuracy",
        "draws": "each score is the mean of {draws} draws of weights and images; a rank lies in its"
        " interval in {share} % of the resamples",
        "one_draw": "weights and images were drawn once: --inits 5 says how sure the ranks are",
        "pruned": "{pruned} of {networks} were left out before by {by}",
        "front_note": "* nothing here has both a better score and a lower {cost}",
        "cost_latency": "predicted latency",
        "cost_macs": "count of MACs",
        "no_score": "without a score by {proxy}, which ranks them last: {networks}",
        "idle": "none of these networks has a score by {proxies}: it decides nothing here",
        "picture": "{source}: {networks} ranked without training by {judge}",
        "x_latency": "latency on {device}, ms, predicted (median)",
        "x_macs": "MACs of one image, millions (computed)",
        "y": "score (log-rank, higher is better)",
        "dominated": "dominated",
        "pareto": "Pareto front, numbered by rank",
        "interval": "{level} % interval of the prediction",
    },
    "ja": {
        "title": "{judge} による学習なしの順位: {source} の{networks}",
        "one": "ネットワーク 1 件",
        "many": "ネットワーク {count} 件",
        "rank": "順位",
        "ranks": "順位\n{low}-{high} %",
        "score": "スコア\n(対数順位)",
        "latency": "{device}\n推論時間 ms 予測\n[{level} %]",
        "macs": "MAC数\nM",
        "parameters": "パラメータ\nM",
        "network": "ネットワーク",
        "front": "フロント",
        "on_front": "*",
        "more": "他 {count} 件は省略(--top 0 で全件表示、--csv と --json は常に全件)",
        "how": "スコア: {formula}。大きいほど良い。この順位表の中だけで比較でき、"
        "精度ではありません",
        "draws": "スコアは重みと画像を {draws} 回引いた平均。"
        "順位の区間は再標本の {share} % を含みます",
        "one_draw": "重みと画像は1回だけ引いています。--inits 5 で順位の確かさが分かります",
        "pruned": "{networks}のうち {pruned} 件を {by} で事前に除外",
        "front_note": "* スコアと{cost}の両方で上回るものがない候補",
        "cost_latency": "予測推論時間",
        "cost_macs": "MAC数",
        "no_score": "{proxy} のスコアがなく、そこでは最下位扱い: {networks}",
        "idle": "{proxies} のスコアはどのネットワークにもないため、順位に影響しません",
        "picture": "{source}: {judge} が学習なしで順位付けした{networks}",
        "x_latency": "{device} の推論時間 ms 予測(中央値)",
        "x_macs": "画像1枚のMAC数 百万(計算値)",
        "y": "スコア(対数順位、大きいほど良い)",
        "dominated": "優越される候補",
        "pareto": "パレートフロント(数字は順位)",
        "interval": "予測の {level} % 区間",
    },
}
