"""The sentences of the report of a study in each language.

What devices and other parts of genba wrote down is quoted in English, and marked as such.
"""

from collections.abc import Mapping

from host.report.measurement_texts import Language

SENTENCES: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "answer.all": "Recommended: {finalists}. On every device ({devices}) every limit is met,"
        " with {quality} {value} on test samples and a median latency of {latency} ms on"
        " {slowest}{limits}.",
        "answer.some": "Recommended for {devices}: {finalists}. Every limit is met there, with"
        " {quality} {value} on test samples and a median latency of {latency} ms on"
        " {slowest}{limits}. Nothing can be recommended for {rest}.",
        "answer.none": "Nothing can be recommended: no trained network meets every limit on any of"
        " the {count} devices ({devices}).",
        "answer.no_finalist": "There is no answer yet: a front was found, and nothing on it has"
        " been trained to the end.",
        "answer.no_front": "There is no answer: no candidate that was measured meets all limits.",
        "answer.limit": " (limit {limit} ms)",
        "answer.no_limit": " (there is no limit)",
        "figure.quality": "on test samples, measured; 95 % interval {interval}",
        "figure.lowest": "on test samples, measured; 95 % interval {interval}; the lowest of those"
        " recommended, on {device}",
        "figure.limit": "on {device}, median, {kind}, n = {n}; limit {limit} ms",
        "figure.no_limit": "on {device}, median, {kind}, n = {n}; no limit",
        "figure.devices_note": "by the figures measured on the devices",
        "kinds": "Measured: read on a device or counted on data. Predicted: by a cost model, before"
        " measuring. Derived: computed from measured numbers. Estimated: without a sensor for it."
        " n is the number of samples, [ ] an interval with its level in the header. A verdict of"
        " WARN means to use the figure with care, REJECT not to use it. A number in brackets names"
        " a finalist beyond a limit.",
        "question.line": "Which network is good and fast enough for these devices? The search went"
        " through the space {space}: {scored} candidates were scored without training (by"
        " {proxies}), and {measured} of them were measured on the devices.",
        "limits.every": "For every device: {limits}.",
        "data.absent": "The study has kept no counts of its data.",
        "data.folder": "Folder: {folder}",
        "data.fingerprint": "Fingerprint of the data: {fingerprint}",
        "data.licence": "Licence: {licence}",
        "data.parts": "The training part teaches, the validation part chooses, and the test part"
        " was looked at once, at the end.",
        "stopped": "Why the search ended: ",
        "unfinished": "The study is not finished. It stopped because: ",
        "front.empty": "The front is empty: no measured candidate meets all limits.",
        "front.line": "Nothing that was found has both a better score and a lower latency than a"
        " candidate on the front. The score is the combined rank by {proxies}, without training; it"
        " is no accuracy. Numbers in the pictures are those of the table.",
        "front.coverage": "{held} of {n} measured medians lie in the interval that was predicted"
        " before ({level} % were promised).",
        "hypervolume.line": "A curve that has become flat says that more candidates would hardly"
        " have made the front better (computed).",
        "finalists.none": "No finalist has been trained to the end.",
        "finalists.line": "Each was trained on the training part and chosen by the validation part;"
        " accuracy and AUROC are of the test part. The majority class is the accuracy of an answer"
        " that is always the most frequent class.",
        "inspection.table": "Inspection at the threshold of least cost (a miss costs {miss}, a"
        " false alarm {false_alarm}; class of defects: {defect}; threshold from the validation"
        " part, counts from the test part)",
        "recall.table": "Inspection at a false-alarm rate of {limit} % (threshold from the"
        " validation part, so that of the test part may differ)",
        "why": "On {device}, {form} was chosen.",
        "why.figures": "Measured there: {form} {latency} ms, {other} {other_latency} ms ({ratio}"
        " times as long). {quality} on validation samples: {value} against {other_value}.",
        "why.reason": "Reason as written down: ",
        "cost.nothing": "There is no recommended network, and so no cost.",
        "cost.no_rate": "How often the devices will be asked in a year was not given, so there is"
        " no cost. Give it by --inferences-per-year, or by --rate-hertz and --hours-per-year.",
        "cost.count": "Given: {count} inferences a year on each device.",
        "cost.rate": "Taken: {rate} inferences a second on each device, {hours} hours a year; that"
        " makes {count} inferences a year (derived).",
        "cost.price": "Given: {price} {currency} per kWh.",
        "cost.no_price": "No price of a kWh was given (--price-per-kwh, --currency).",
        "cost.dark": "Energy was not measured on any of these devices: there is no figure for a"
        " year, and none was made up.",
        "cost.gross": "The energy is gross: everything that the sensor sees while the device"
        " computes, idle power included. What the device draws while it waits for the next piece"
        " comes on top and is not in these figures.",
        "agreement.nothing": "Nothing was trained, so the score cannot be compared with trained"
        " quality.",
        "agreement.none": "{n} candidates were trained; that is too few to compare, or no two of"
        " them were judged after the same epochs, or all of these have one score or one quality, so"
        " that there is no order.",
        "agreement.line": "Kendall's tau-b between the score and the quality after {epochs} epochs"
        " is {kendall} (n = {n} candidates, computed from measured qualities). In plain words: of"
        " 100 pairs of candidates, about {ordered} are in the same order by score and by"
        " training.",
        "agreement.interval": "The 95 % interval is [{low}, {high}].",
        "agreement.no_interval": "With n = {n} there is no interval: take the figure as a hint"
        " only.",
        "agreement.better": "It lies above 0, so the score was better than chance here.",
        "agreement.worse": "It lies below 0, so the score misled here: choose by training, or by"
        " other proxies.",
        "agreement.chance": "It includes 0, so this study cannot tell the score from chance.",
        "doubts.line": "What a reader should know before relying on the figures above.",
        "doubts.none": "Nothing: every figure was measured, and every verdict is OK.",
        "doubt.nothing": "{device}: there is no finalist that was measured there, so nothing is"
        " recommended.",
        "doubt.beyond": "{device}: the best, {form} of finalist {number}, is beyond a limit.",
        "doubt.reject": "{device}: the measurement of {form} of finalist {number} has the verdict"
        " REJECT. Measure it again before relying on it.",
        "doubt.unverified": "{device}: the answers of {form} of finalist {number} were not compared"
        " with those on the host. int8 answers depend on the CPU.",
        "doubt.answers": "{device}: {form} of finalist {number} gave the host's answer on {share} %"
        " of the validation samples, not on all.",
        "doubt.majority": "{device}: by its interval, the accuracy of {form} of finalist {number}"
        " may be no better than always answering the most frequent class ({share} %).",
        "doubt.limit": "{device}: there is no measured figure of {form} of finalist {number} that"
        " could be held against this limit here: {limit}.",
        "doubt.rate": "{device}: {form} of finalist {number} would be busy {share} % of the time"
        " and cannot keep up with the line.",
        "doubt.rows": "{device}: {count} of {n} candidates on the front were not measured.",
        "doubt.form": "{device}: finalist {number} has no form {form}; it was not made, or it"
        " failed.",
        "doubt.form_device": "{device}: {form} of finalist {number} was not measured.",
        "doubt.bundle": "{device}: finalist {number} has no bundle for it.",
        "doubt.data": "Counts of the data were not kept.",
        "doubt.agreement": "How well the score ranked trained networks is not known here.",
        "doubt.verdict": "{device}: {level}, measurements: {count}. ",
        "doubt.energy": "{device}: no energy in {count} of {n} measurements. ",
        "doubt.p90": "{device}: too few samples for the 90 % quantile of latency in {count} of {n}"
        " measurements.",
        "doubt.kind": "{device}: the latency of {count} of {n} measurements is {kind}, not measured"
        " directly.",
        "doubt.untold": "{device}: {count} of {n} latencies were not predicted beforehand (those"
        " measured to calibrate, for one).",
        "reproduce.version": "This report was made by genba {version}.",
        "reproduce.seed": "Seed: {seed}",
        "reproduce.created": "Begun: {at}",
        "reproduce.finished": "Finished: {at}",
        "reproduce.unfinished": "Not finished yet: `genba search resume` goes on with it.",
        "reproduce.runtime": "{device}: {runtime}, threads: {threads}",
        "reproduce.noise": "Scores and splits repeat with the same seed and data. Measured figures"
        " repeat within their intervals only, and with them which candidates are measured next.",
        "footer": "Written by genba {version}. This file needs nothing from the network.",
    },
    "ja": {
        "answer.all": "{finalists}を推奨します。対象の全装置({devices})ですべての上限を満たし、"
        "テストデータでの{quality}は {value}、推論時間の中央値は {slowest} で"
        " {latency} ms{limits}です。",
        "answer.some": "{devices} には{finalists}を推奨します。すべての上限を満たし、"
        "テストデータでの{quality}は {value}、推論時間の中央値は {slowest} で"
        " {latency} ms{limits}です。{rest} に推奨できるものはありません。",
        "answer.none": "推奨できるものはありません。対象の {count} 装置({devices})のいずれでも、"
        "すべての上限を満たす学習済みネットワークは見つかりませんでした。",
        "answer.no_finalist": "結論はまだ出ていません。パレート前線は得られましたが、"
        "学習を終えた候補がありません。",
        "answer.no_front": "結論は得られませんでした。"
        "測定した候補の中に、すべての上限を満たすものがありません。",
        "answer.limit": "(上限 {limit} ms)",
        "answer.no_limit": "(上限の指定なし)",
        "figure.quality": "テストデータ、実測、95 %信頼区間 {interval}",
        "figure.lowest": "テストデータ、実測、95 %信頼区間 {interval}。"
        "推奨の中で最も低い値({device})",
        "figure.limit": "{device}、中央値、{kind}、n = {n}、上限 {limit} ms",
        "figure.no_limit": "{device}、中央値、{kind}、n = {n}、上限の指定なし",
        "figure.devices_note": "実機で測定した値による",
        "kinds": "「実測」は装置で測った値またはデータで数えた値、"
        "「予測」は測定前にコストモデルが出した値、「算出」は実測値から計算した値、"
        "「推定」はセンサーによらない値です。n はサンプル数、[ ] は区間で、水準は見出しに示します。"
        "判定の WARN は注意して使う値、REJECT は使えない値です。"
        "括弧付きの番号は、上限を超えた最終候補です。",
        "question.line": "これらの装置で十分な品質と速さを両立するネットワークはどれか。"
        "探索空間 {space} の候補 {scored} 件に学習なしでスコアを付け({proxies})、"
        "そのうち {measured} 件を実機で測定しました。",
        "limits.every": "全装置に共通の上限: {limits}。",
        "data.absent": "このスタディにはデータの件数が記録されていません。",
        "data.folder": "フォルダー: {folder}",
        "data.fingerprint": "データのフィンガープリント: {fingerprint}",
        "data.licence": "ライセンス: {licence}",
        "data.parts": "学習用データで学習し、検証用データで選択しました。"
        "テスト用データは最後に一度だけ使っています。",
        "stopped": "探索を終えた理由(英語の記録): ",
        "unfinished": "このスタディは完了していません。停止した理由(英語の記録): ",
        "front.empty": "パレート前線は空です。測定した候補の中に、"
        "すべての上限を満たすものがありません。",
        "front.line": "パレート前線の候補に対して、スコアと推論時間の両方で上回るものは"
        "見つかりませんでした。スコアは {proxies} の順位を学習なしで合成した値で、"
        "正解率ではありません。図中の数字は表の番号です。",
        "front.coverage": "測定した中央値 {n} 件のうち {held} 件が、"
        "事前に予測した区間({level} %区間)に入りました。",
        "hypervolume.line": "曲線が平らになっていれば、候補をさらに増やしても"
        "パレート前線はほとんど改善しません(計算値)。",
        "finalists.none": "学習を終えた最終候補はありません。",
        "finalists.line": "学習用データで学習し、検証用データで選んだ候補です。"
        "正解率とAUROCはテスト用データでの値です。「最多クラスの割合」は、"
        "常に最も多いクラスと答えた場合の正解率に当たります。",
        "inspection.table": "検査性能: 損失が最小となるしきい値の場合"
        "(見逃し1件の損失 {miss}、過検出1件の損失 {false_alarm}、不良のクラス: {defect}。"
        "しきい値は検証用データで決め、件数はテスト用データによる)",
        "recall.table": "検査性能: 過検出率を {limit} % とした場合"
        "(しきい値は検証用データで決めたため、テスト用データでの過検出率とは異なることがある)",
        "why": "{device} では {form} を採用しました。",
        "why.figures": "実測では {form} が {latency} ms、{other} が {other_latency} ms"
        "({ratio} 倍の時間)、検証データでの{quality}は {value} に対して {other_value} です。",
        "why.reason": "記録された理由(英語): ",
        "cost.nothing": "推奨するネットワークがないため、費用は算出していません。",
        "cost.no_rate": "年間の推論回数が指定されていないため、費用は算出していません。"
        "--inferences-per-year、または --rate-hertz と --hours-per-year で指定してください。",
        "cost.count": "前提: 装置1台あたり年間 {count} 回の推論(指定値)。",
        "cost.rate": "前提: 装置1台あたり毎秒 {rate} 回、年間 {hours} 時間(指定値)。"
        "年間 {count} 回の推論に当たります(算出)。",
        "cost.price": "電力単価は 1 kWh あたり {price} {currency}(指定値)。",
        "cost.no_price": "電力単価は指定されていません(--price-per-kwh と --currency で指定)。",
        "cost.dark": "対象の装置では消費電力量を測定していません。"
        "そのため年間の値はなく、推測による値も載せていません。",
        "cost.gross": "消費電力量は推論中にセンサーが捉えた全量で、待機電力の分を含みます。"
        "次のワークを待つ間の待機電力は別にかかり、この表には含まれません。",
        "agreement.nothing": "学習した候補がないため、"
        "スコアと学習後の品質を比べることができません。",
        "agreement.none": "{n} 件の候補を学習しましたが、件数が足りないか、"
        "同じエポック数で評価した候補がないか、スコアまたは品質がすべて同じ値で順序がないため、"
        "比較できません。",
        "agreement.line": "スコアと {epochs} エポック学習後の品質との順位相関"
        "(ケンドールのタウb)は {kendall} です(候補 n = {n}、実測の品質から算出)。"
        "言い換えると、候補の組 100 組のうち約 {ordered} 組で、"
        "スコアの順序と学習後の順序が一致します。",
        "agreement.interval": "95 %信頼区間は [{low}, {high}] です。",
        "agreement.no_interval": "n = {n} では信頼区間を出せないため、参考値としてください。",
        "agreement.better": "区間全体が 0 より大きく、スコアは偶然より良い順位付けでした。",
        "agreement.worse": "区間全体が 0 より小さく、今回スコアは逆の順位を示しました。"
        "学習結果で選ぶか、別のプロキシを使ってください。",
        "agreement.chance": "区間が 0 を含むため、"
        "スコアが偶然より良いかどうかは今回のデータでは判断できません。",
        "doubts.line": "上の数値を使う前に知っておくべき点です。",
        "doubts.none": "ありません。すべて実測値で、判定はすべて OK です。",
        "doubt.nothing": "{device}: 実機で測定した最終候補がなく、推奨できるものがありません。",
        "doubt.beyond": "{device}: 最も良い最終候補{number}の {form} も上限を超えています。",
        "doubt.reject": "{device}: 最終候補{number}の {form} の測定は判定が REJECT です。"
        "使う前に測り直してください。",
        "doubt.unverified": "{device}: 最終候補{number}の {form} の判断結果は、"
        "ホストの結果と照合していません。int8 の結果はCPUによって変わります。",
        "doubt.answers": "{device}: 最終候補{number}の {form} がホストと同じ判断をしたのは、"
        "検証データの {share} % です(全件ではありません)。",
        "doubt.majority": "{device}: 最終候補{number}の {form} の正解率は、区間で見ると"
        "常に最多クラスと答えた場合({share} %)を上回らない可能性があります。",
        "doubt.limit": "{device}: 最終候補{number}の {form} には、上限「{limit}」と"
        "直接比べられる実測値がありません。",
        "doubt.rate": "{device}: 最終候補{number}の {form} は稼働率が {share} % になり、"
        "ラインの速度に追い付きません。",
        "doubt.rows": "{device}: パレート前線の候補 {n} 件のうち {count} 件が未測定です。",
        "doubt.form": "{device}: 最終候補{number}には {form} がありません"
        "(作成していないか、作成に失敗)。",
        "doubt.form_device": "{device}: 最終候補{number}の {form} は未測定です。",
        "doubt.bundle": "{device}: 最終候補{number}のバンドルがありません。",
        "doubt.data": "データの件数が記録されていません。",
        "doubt.agreement": "スコアが学習後の順位をどれだけ当てたかは分かっていません。",
        "doubt.verdict": "{device}: {level}、測定 {count} 件。",
        "doubt.energy": "{device}: 測定 {n} 件のうち {count} 件に消費電力量がありません。",
        "doubt.p90": "{device}: 測定 {n} 件のうち {count} 件は、サンプル数が足りず"
        "推論時間の 90 %点がありません。",
        "doubt.kind": "{device}: 測定 {n} 件のうち {count} 件の推論時間は、"
        "直接の実測ではなく{kind}による値です。",
        "doubt.untold": "{device}: 測定 {n} 件のうち {count} 件は、事前の予測がありません"
        "(校正用の測定など)。",
        "reproduce.version": "この報告書は genba {version} で作成しました。",
        "reproduce.seed": "シード: {seed}",
        "reproduce.created": "開始: {at}",
        "reproduce.finished": "完了: {at}",
        "reproduce.unfinished": "未完了です。`genba search resume` で続きを実行できます。",
        "reproduce.runtime": "{device}: {runtime}、スレッド数 {threads}",
        "reproduce.noise": "シードとデータが同じなら、スコアとデータの分割は再現します。"
        "実測値は区間の範囲で変動し、それに応じて次に測定する候補も変わることがあります。",
        "footer": "genba {version} が作成しました。"
        "このファイルはネットワークに接続しなくても表示できます。",
    },
}
